//! No session started after a server's death fails because of it; a server that returns is used again.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::scope;

use crate::support::client::{Client, ask};
use crate::support::configs::one_pool;
use crate::support::counts::log_lines;
use crate::support::database::Redis;
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, refusing};
use serde_json::Value;

/// One request in a session of its own.
fn ping(address: SocketAddr) -> std::io::Result<()> {
    let mut client = Client::try_connect(address)?;
    client.0.write_all(b"PING\r\nQUIT\r\n")?;
    let answer = client.try_read_all()?;
    if answer == b"+PONG\r\n+OK\r\n" {
        Ok(())
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

fn server_labels<'a>(server: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("server", server)][..], more].concat()
}

#[test]
fn sessions_started_after_a_server_kill_are_served_and_use_the_server_after_its_restart() {
    let (stays, mut dies) = (Redis::start(), Redis::start());
    let proxy = Proxy::start(&one_pool(
        &[stays.address(), dies.address()],
        "health = { interval = \"200ms\", rise = 3, fall = 3 }",
    ));
    let label = dies.address().to_string();
    let is_dead = AtomicBool::new(false);
    scope(|all| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                all.spawn(|| {
                    let mut sessions_after_the_kill = 0;
                    while sessions_after_the_kill < 100 {
                        let is_after_the_kill = is_dead.load(SeqCst);
                        let answered = ping(proxy.at("l"));
                        assert!(
                            answered.is_ok() || !is_after_the_kill,
                            "expected a session started after the kill to be served: {answered:?}"
                        );
                        sessions_after_the_kill += usize::from(is_after_the_kill);
                    }
                })
            })
            .collect();
        eventually("the server has sessions", || {
            proxy
                .metrics()
                .sum("acequia_sessions_total", &server_labels(&label, &[]))
                > 20.0
        });
        dies.kill();
        is_dead.store(true, SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    eventually("the killed server is down", || {
        proxy.metrics().sum("acequia_server_up", &server_labels(&label, &[])) == 0.0
    });
    let passed = || {
        proxy.metrics().sum(
            "acequia_health_checks_total",
            &server_labels(&label, &[("result", "pass")]),
        )
    };
    let passed_before = passed();
    dies.restart();
    eventually("the restarted server is up", || {
        proxy.metrics().sum("acequia_server_up", &server_labels(&label, &[])) == 1.0
    });
    assert!(
        passed() >= passed_before + 3.0,
        "expected `rise` passed checks before it is up"
    );
    let sessions = || {
        proxy
            .metrics()
            .sum("acequia_sessions_total", &server_labels(&label, &[]))
    };
    let before = sessions();
    (0..10).for_each(|_| ping(proxy.at("l")).unwrap());
    eventually("the server has 3 of 10 sessions", || sessions() >= before + 3.0);
}

#[test]
fn a_dead_server_is_tried_as_often_as_eject_after_says() {
    let (stays, dead) = (Server::named("s1"), refusing());
    let health = "health = { check = \"off\", eject_after = 3, eject_for = \"1h\", eject_max_for = \"1h\" }";
    let proxy = Proxy::start(&one_pool(&[stays.address, dead.address], health));
    for _ in 0..40 {
        assert_eq!(ask(proxy.at("l"), b""), b"s1");
    }
    let attempts: Vec<_> = proxy
        .access_lines(40)
        .iter()
        .map(|line| line["attempts"].as_u64().unwrap())
        .collect();
    assert_eq!(
        attempts.iter().filter(|attempts| **attempts == 2).count(),
        3,
        "{attempts:?}"
    );
    assert_eq!(attempts.iter().sum::<u64>(), 43);
    let refused = [("reason", "refused"), ("server", &dead.address.to_string())];
    assert_eq!(proxy.metrics().sum("acequia_connect_failures_total", &refused), 3.0);
    log_lines(&proxy, "server is ejected", 1);
}

#[test]
fn an_ejected_server_is_tried_again_after_eject_for() {
    let (stays, dead) = (Server::named("s1"), refusing());
    let health = "health = { check = \"off\", eject_after = 1, eject_for = \"100ms\", eject_max_for = \"200ms\" }";
    let proxy = Proxy::start(&one_pool(&[stays.address, dead.address], health));
    eventually("the dead server is ejected", || {
        assert_eq!(ask(proxy.at("l"), b""), b"s1");
        proxy.metrics().sum("acequia_server_ejected", &[]) == 1.0
    });
    let _back = Server::named_on(dead.listen(), "s2");
    eventually("the returned server is used", || ask(proxy.at("l"), b"") == b"s2");
}

#[test]
fn the_next_server_gets_the_hello_unchanged() {
    let (dead, alive) = (refusing(), Server::keeping(b"bye"));
    let routes = "[[listeners.l.routes]]\nsni = \"a.example\"\npool = \"p\"";
    let more = format!("balance = \"round-robin\"\nhealth = {{ check = \"off\", eject_after = 100 }}\n{routes}");
    let proxy = Proxy::start(&one_pool(&[dead.address, alive.address], &more));
    let mut hello = Hello::named("a.example").padded(3000).in_records(&[2, 800]);
    hello.extend([42; 500]);
    for piece_length in [1, 900, 10_000] {
        for _ in 0..2 {
            let mut client = Client::connect(proxy.at("l"));
            client.send_in_pieces(&hello, piece_length);
            assert_eq!(client.finish().read_all(), b"bye");
        }
    }
    let attempts: Vec<_> = proxy
        .access_lines(6)
        .iter()
        .map(|line| line["attempts"].as_u64().unwrap())
        .collect();
    assert_eq!(
        attempts.iter().filter(|attempts| **attempts == 2).count(),
        3,
        "expected 2 attempts in every other session: {attempts:?}"
    );
    assert_eq!(alive.received(), [(); 6].map(|()| hello.clone()));
}

/// Attempts and ending of one session when none of these servers listens.
fn attempts_and_ending(servers: &[Port], more: &str) -> (Value, Value) {
    let addresses: Vec<_> = servers.iter().map(|port| port.address).collect();
    let proxy = Proxy::start(&one_pool(&addresses, more));
    Client::connect(proxy.at("l")).must_be_closed();
    let line = proxy.access_line();
    (line["attempts"].clone(), line["ending"].clone())
}

#[test]
fn without_a_live_server_the_record_shows_the_attempts() {
    let ports = || [(); 5].map(|()| refusing());
    let unchecked = "health = { check = \"off\", eject_after = 100 }";
    assert_eq!(
        attempts_and_ending(&ports()[..2], unchecked),
        (2.into(), "connect_failed".into())
    );
    assert_eq!(
        attempts_and_ending(&ports(), unchecked),
        (3.into(), "connect_failed".into()),
        "the default of `retries` is 2"
    );
    assert_eq!(
        attempts_and_ending(&ports(), &format!("retries = 0\n{unchecked}")),
        (1.into(), "connect_failed".into())
    );
    assert_eq!(
        attempts_and_ending(&ports(), &format!("retries = 9\n{unchecked}")),
        (5.into(), "connect_failed".into())
    );
    assert_eq!(
        attempts_and_ending(&ports()[..1], unchecked),
        (1.into(), "connect_failed".into()),
        "expected no server to be tried twice"
    );
    assert_eq!(
        attempts_and_ending(&ports()[..2], ""),
        (0.into(), "no_server".into()),
        "expected no attempt: checks found the servers down"
    );
}

#[test]
fn the_only_server_of_a_pool_without_a_queue_is_never_ejected() {
    let dead = refusing();
    let health = "health = { check = \"off\", eject_after = 1, eject_for = \"1h\", eject_max_for = \"1h\" }";
    let proxy = Proxy::start(&one_pool(&[dead.address], health));
    for _ in 0..5 {
        let _ = Client::connect(proxy.at("l")).try_read_all();
    }
    assert!(proxy.access_lines(5).iter().all(|line| line["attempts"] == 1));
    let _back = Server::named_on(dead.listen(), "s1");
    assert_eq!(
        ask(proxy.at("l"), b""),
        b"s1",
        "expected the returned server to be used at once"
    );
}

#[test]
fn a_pool_whose_servers_all_have_weight_0_ends_sessions_as_no_server_at_once() {
    let servers = [Server::named("s1"), Server::named("s2")];
    let addresses = servers.each_ref().map(|server| server.address);
    for balance in ["least-conn", "round-robin", "source-hash", "random-two"] {
        let proxy = Proxy::start(&one_pool(&addresses, &format!("balance = \"{balance}\"")));
        for address in addresses {
            let set = proxy.command(&["server", "weight", &format!("p/{address}"), "0"]);
            assert_eq!(set.code, Some(0), "{set:?}");
        }
        assert_eq!(ask(proxy.at("l"), b""), b"");
        let line = proxy.access_line();
        assert_eq!(
            (&line["ending"], &line["attempts"]),
            (&"no_server".into(), &0.into()),
            "{balance}"
        );
    }
}
