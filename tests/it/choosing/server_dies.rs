//! A server that dies costs nobody a session begun after its death; one that is back is used again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::scope;

use crate::support::client::{Client, ask};
use crate::support::database::Redis;
use crate::support::hello::Hello;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, refusing};
use crate::support::{eventually, wait_for};
use serde_json::Value;

/// One listener, one pool of these servers; `more` is of the pool.
fn config(servers: &[SocketAddr], more: &str) -> String {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    format!("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = {servers:?}\n{more}\n")
}

/// A session of its own for one request.
fn ping(address: SocketAddr) -> std::io::Result<()> {
    let mut client = Client::try_connect(address)?;
    std::io::Write::write_all(&mut client.0, b"PING\r\nQUIT\r\n")?;
    let answer = client.try_read_all()?;
    if answer == b"+PONG\r\n+OK\r\n" {
        Ok(())
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

fn of_server<'a>(server: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("server", server)][..], more].concat()
}

#[test]
fn no_session_begun_after_a_kill_fails_and_the_server_comes_back() {
    let (stays, mut dies) = (Redis::start(), Redis::start());
    let proxy = Proxy::start(&config(
        &[stays.address(), dies.address()],
        "health = { interval = \"200ms\", rise = 3, fall = 3 }",
    ));
    let label = dies.address().to_string();
    let is_dead = AtomicBool::new(false);
    scope(|all| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                all.spawn(|| {
                    let mut begun_after = 0;
                    while begun_after < 100 {
                        let after = is_dead.load(SeqCst);
                        let answered = ping(proxy.at("l"));
                        assert!(answered.is_ok() || !after, "begun after the kill: {answered:?}");
                        begun_after += usize::from(after);
                    }
                })
            })
            .collect();
        eventually("it is in use", || {
            proxy.metrics().sum("acequia_sessions_total", &of_server(&label, &[])) > 20.0
        });
        dies.kill();
        is_dead.store(true, SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    eventually("it is seen to be down", || {
        proxy.metrics().sum("acequia_server_up", &of_server(&label, &[])) == 0.0
    });
    let passed = || {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &of_server(&label, &[("result", "pass")]))
    };
    let passed_before = passed();
    dies.restart();
    eventually("it is up", || {
        proxy.metrics().sum("acequia_server_up", &of_server(&label, &[])) == 1.0
    });
    assert!(passed() >= passed_before + 3.0, "`rise` good checks first");
    let sessions = || proxy.metrics().sum("acequia_sessions_total", &of_server(&label, &[]));
    let before = sessions();
    (0..10).for_each(|_| ping(proxy.at("l")).unwrap());
    eventually("it has a share of them", || sessions() >= before + 3.0);
}

#[test]
fn after_a_few_failed_attempts_a_dead_server_is_not_tried_any_more() {
    let (stays, dead) = (Server::named("s1"), refusing());
    let health = "health = { check = \"off\", eject_after = 3, eject_for = \"1h\", eject_max_for = \"1h\" }";
    let proxy = Proxy::start(&config(&[stays.address, dead.address], health));
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
    let told = proxy
        .log()
        .iter()
        .filter(|line| line["message"].as_str().unwrap().contains("ejected"))
        .count();
    assert_eq!(told, 1, "said once: {:#?}", proxy.log());
}

#[test]
fn a_server_that_is_out_is_tried_again_when_its_time_is_over() {
    let (stays, dead) = (Server::named("s1"), refusing());
    let health = "health = { check = \"off\", eject_after = 1, eject_for = \"100ms\", eject_max_for = \"200ms\" }";
    let proxy = Proxy::start(&config(&[stays.address, dead.address], health));
    eventually("it is out", || {
        assert_eq!(ask(proxy.at("l"), b""), b"s1");
        proxy.metrics().sum("acequia_server_up", &[]) == 1.0
    });
    let _back = Server::named_on(dead.listen(), "s2");
    eventually("it is back", || ask(proxy.at("l"), b"") == b"s2");
}

#[test]
fn the_next_server_gets_the_same_hello() {
    let (dead, alive) = (refusing(), Server::keeping(b"bye"));
    let routes = "[[listeners.l.routes]]\nsni = \"a.example\"\npool = \"p\"";
    let more = format!("balance = \"round-robin\"\nhealth = {{ check = \"off\", eject_after = 100 }}\n{routes}");
    let proxy = Proxy::start(&config(&[dead.address, alive.address], &more));
    let mut hello = Hello::named("a.example").padded(3000).in_records(&[2, 800]);
    hello.extend([42; 500]);
    for pieces in [1, 900, 10_000] {
        for _ in 0..2 {
            let mut client = Client::connect(proxy.at("l"));
            client.send_in_pieces(&hello, pieces);
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
        "every second: {attempts:?}"
    );
    assert_eq!(alive.received(), [(); 6].map(|()| hello.clone()));
}

/// Attempts and ending of the one session of a client without a server.
fn fate(servers: &[Port], more: &str) -> (Value, Value) {
    let addresses: Vec<_> = servers.iter().map(|port| port.address).collect();
    let proxy = Proxy::start(&config(&addresses, more));
    assert_eq!(Client::connect(proxy.at("l")).try_read_all().unwrap_or_default(), b"");
    let line = proxy.access_line();
    (line["attempts"].clone(), line["ending"].clone())
}

#[test]
fn without_a_living_server_the_ending_says_what_was_tried() {
    let ports = || [(); 5].map(|()| refusing());
    let unchecked = "health = { check = \"off\", eject_after = 100 }";
    assert_eq!(fate(&ports()[..2], unchecked), (2.into(), "connect_failed".into()));
    assert_eq!(
        fate(&ports(), unchecked),
        (3.into(), "connect_failed".into()),
        "1 + retries"
    );
    assert_eq!(
        fate(&ports(), &format!("retries = 0\n{unchecked}")),
        (1.into(), "connect_failed".into())
    );
    assert_eq!(
        fate(&ports(), &format!("retries = 9\n{unchecked}")),
        (5.into(), "connect_failed".into())
    );
    assert_eq!(
        fate(&ports()[..1], unchecked),
        (1.into(), "connect_failed".into()),
        "never the same one twice"
    );
    assert_eq!(
        fate(&ports()[..2], ""),
        (0.into(), "no_server".into()),
        "the checks know"
    );
}

#[test]
fn a_server_alone_is_never_taken_out_by_its_failures() {
    let dead = refusing();
    let health = "health = { check = \"off\", eject_after = 1, eject_for = \"1h\", eject_max_for = \"1h\" }";
    let proxy = Proxy::start(&config(&[dead.address], health));
    for _ in 0..5 {
        let _ = Client::connect(proxy.at("l")).try_read_all();
    }
    assert!(proxy.access_lines(5).iter().all(|line| line["attempts"] == 1));
    let _back = Server::named_on(dead.listen(), "s1");
    let answer = wait_for("an answer", || Some(ask(proxy.at("l"), b"")));
    assert_eq!(answer, b"s1", "it is used the moment it is back");
}

#[test]
fn a_pool_of_which_nobody_is_to_be_used_any_more_says_so_at_once() {
    let servers = [Server::named("s1"), Server::named("s2")];
    let addresses = servers.each_ref().map(|server| server.address);
    for balance in ["least-conn", "round-robin", "source-hash", "random-two"] {
        let proxy = Proxy::start(&config(&addresses, &format!("balance = \"{balance}\"")));
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
