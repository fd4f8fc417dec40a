//! `max_session_age` and `rebalance` end sessions at rest. A busy session is cut once it exceeds its age limit by a
//! tenth of `max_session_age`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::client::{Client, served_client};
use crate::support::counts::ended_sessions;
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, Server};
use crate::support::{configs, eventually};

fn config(servers: &[SocketAddr], pool: &str) -> String {
    configs::one_pool(servers, &format!("health = {{ check = \"off\" }}\n{pool}"))
}

/// Waits until each server has `share` sessions, with a difference of at most `off_by`. Each client whose session was
/// ended connects again.
fn wait_until_even(proxy: &Proxy, servers: &[Server], clients: &mut [Client], share: u64, off_by: u64) {
    let sessions = |server: &Server| {
        proxy.server("p", &server.address.to_string())["sessions"]
            .as_u64()
            .unwrap()
    };
    eventually("the new server has its share", || {
        for client in &mut *clients {
            client.0.set_nonblocking(true).unwrap();
            if client.0.read(&mut [0; 1]).is_ok_and(|bytes| bytes == 0) {
                *client = served_client(proxy.at("l"));
            }
        }
        servers.iter().all(|server| sessions(server).abs_diff(share) <= off_by)
    });
}

#[test]
fn an_overaged_session_ends_when_it_is_at_rest() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(
        &[server.address],
        "max_session_age = \"3s\"\nidle_for = \"1s\"",
    ));
    let began = Instant::now();
    let mut client = served_client(proxy.at("l"));
    assert_eq!(client.read_all(), b"", "an orderly end");
    let age = began.elapsed();
    // The limit of a session is `max_session_age`, 10 % more or less.
    assert!(age >= Duration::from_millis(2700), "{age:?}");
    drop(client);
    assert_eq!(proxy.access_line()["ending"], "aged");
}

#[test]
fn a_busy_overaged_session_is_cut_after_another_tenth_of_max_session_age() {
    let manual = ManualServer::new();
    let proxy = Proxy::start(&config(
        &[manual.server.address],
        "max_session_age = \"10s\"\nidle_for = \"1s\"",
    ));
    let began = Instant::now();
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"a query that takes long");
    let session = manual.session();
    client.must_be_reset();
    let age = began.elapsed();
    assert!(
        age >= Duration::from_secs(10) && age < Duration::from_secs(15),
        "{age:?}"
    );
    Client(session).must_be_reset();
    assert_eq!(proxy.access_line()["ending"], "aged");
}

/// The time that a client waits for a server does not count: otherwise a client that has waited long would be cut at
/// once.
#[test]
fn the_age_of_a_session_counts_from_its_connection_to_the_server() {
    let manual = ManualServer::new();
    let pool = "max_session_age = \"2s\"\nidle_for = \"1s\"\nmax_sessions = 1\nqueue = { timeout = \"60s\" }";
    let proxy = Proxy::start(&config(&[manual.server.address], pool));
    let _first = Client::connect(proxy.at("l"));
    let _busy = manual.session();
    let _waits = Client::connect(proxy.at("l"));
    let session = manual.session(); // the first one was cut for its age
    Client(session).must_be_reset();
    let line = &proxy.access_lines(2)[1];
    let ms = |key: &str| line[key].as_f64().unwrap();
    assert!(ms("duration_ms") - ms("queue_ms") >= 1800.0, "{line}"); // 2 s less 10 %
}

#[test]
fn a_client_that_ignores_the_end_at_rest_has_5_s_and_its_place_is_free_when_the_server_ends() {
    let manual = ManualServer::new();
    let pool = "max_session_age = \"3s\"\nidle_for = \"1s\"\nmax_sessions = 1\nqueue = { timeout = \"60s\" }";
    let proxy = Proxy::start(&config(&[manual.server.address], pool));
    let mut client = Client::connect(proxy.at("l"));
    let mut session = manual.session();
    session.write_all(b"hello").unwrap();
    client.read(5);
    assert_eq!(session.read(&mut [0]).unwrap(), 0);
    let ended = Instant::now();
    let waits = Client::connect(proxy.at("l"));
    session.shutdown(Shutdown::Write).unwrap();
    // `max_sessions` allows the next session when the server ends this one, long before the client is reset.
    let _next = manual.session();
    assert!(ended.elapsed() < Duration::from_secs(3));
    proxy.wait_for_access("it has ended", |line| {
        line["ending"] == "aged" && line["bytes_down"] == 5
    });
    assert!(ended.elapsed() >= Duration::from_millis(4500), "{:?}", ended.elapsed());
    drop(waits);
}

#[test]
fn a_session_that_ends_at_rest_can_be_killed() {
    let manual = ManualServer::new();
    let pool = "max_session_age = \"2s\"\nidle_for = \"1s\"";
    let proxy = Proxy::start(&config(&[manual.server.address], pool));
    let mut client = Client::connect(proxy.at("l"));
    let mut session = manual.session();
    session.write_all(b"hello").unwrap();
    client.read(5);
    let sessions: Value = serde_json::from_str(&proxy.command(&["sessions", "--json"]).stdout).unwrap();
    let id = sessions["sessions"][0]["id"].to_string();
    assert_eq!(session.read(&mut [0]).unwrap(), 0, "expected acequia to end it");
    let ended = Instant::now();
    assert_eq!(proxy.command(&["sessions", "--kill", &id]).code, Some(0));
    proxy.wait_for_access("it has ended", |line| line["ending"] == "killed");
    assert!(ended.elapsed() < Duration::from_secs(4), "{:?}", ended.elapsed());
}

#[test]
fn a_new_server_gets_its_share_of_idle_sessions_and_busy_ones_stay() {
    let servers: Vec<_> = (0..3).map(|_| Server::echo()).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let pool = "rebalance = \"3s\"\nidle_for = \"1s\"";
    let proxy = Proxy::start(&config(&addresses[..2], pool));
    let mut clients: Vec<_> = (0..60).map(|_| served_client(proxy.at("l"))).collect();
    std::thread::scope(|scope| {
        let mut busy: Vec<_> = clients.drain(..30).collect();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let pinging = scope.spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout) {
                for client in &mut busy {
                    assert_eq!(client.send(b"ping").read(4), b"ping", "it is busy");
                }
            }
        });
        assert!(proxy.reload(&config(&addresses, pool)));
        let began = Instant::now();
        wait_until_even(&proxy, &servers, &mut clients, 20, 2);
        let took = began.elapsed();
        assert!(
            took >= Duration::from_secs(2),
            "expected sessions to end over the time of `rebalance`, not all at once: {took:?}"
        );
        drop(stop);
        pinging.join().unwrap();
    });
    let rebalanced = ended_sessions(&proxy, "rebalanced");
    assert!((18.0..=22.0).contains(&rebalanced), "{rebalanced}");
    let lines = proxy.access();
    assert!(
        lines
            .iter()
            .all(|line| line["ending"] != "rebalanced" || line["bytes_up"] == 4),
        "expected only sessions without pings to be moved"
    );
}

/// The relay has sent the last byte of these sessions, but the kernel cannot deliver it before the clients read.
/// `idle_for` begins when it is delivered.
#[test]
fn sessions_with_undelivered_bytes_are_not_moved() {
    const ANSWER: usize = 2 << 20;
    let (sends, echo) = (ManualServer::new(), Server::echo());
    let pool = "rebalance = \"1s\"\nidle_for = \"3s\"";
    let proxy = Proxy::start(&config(&[sends.server.address], pool));
    let answered = |answer: &[u8]| {
        let client = Client::connect(proxy.at("l"));
        let mut session = sends.session();
        session.write_all(answer).unwrap();
        (client, session)
    };
    let mut slow: Vec<_> = (0..2).map(|_| answered(&vec![b'x'; ANSWER])).collect();
    eventually("the relay has read all", || {
        proxy.metrics().sum("acequia_bytes_total", &[("direction", "down")]) == 2.0 * ANSWER as f64
    });
    let mut idle: Vec<_> = (0..2).map(|_| answered(b"hello")).collect();
    assert!(proxy.reload(&config(&[sends.server.address, echo.address], pool)));
    for (client, _session) in &mut idle {
        assert_eq!(client.read_all(), b"hello", "idle sessions are moved");
    }
    let [(first, _first), (second, session)] = &mut slow[..] else {
        unreachable!()
    };
    let began = Instant::now();
    first.read(ANSWER);
    assert_eq!(first.read_all(), b"", "moved once it is idle");
    // The bound is less than `idle_for`: acequia looks for undelivered bytes only once a second, and `idle_for` begins
    // at the last look that found some.
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(1500),
        "moved {took:?} after the last byte"
    );
    second.read(ANSWER);
    session.write_all(b"more").unwrap();
    assert_eq!(second.read(4), b"more", "not moved");
}

/// The oldest sessions wait for an answer, as those of a consumer that waits for jobs do. There are more of them than
/// sessions to be moved.
#[test]
fn sessions_awaiting_an_answer_do_not_prevent_moving_others() {
    let answers_pings = |mut stream: std::net::TcpStream| {
        let mut bytes = [0; 4];
        while stream.read_exact(&mut bytes).is_ok() {
            if &bytes == b"ping" && stream.write_all(&bytes).is_err() {
                return;
            }
        }
    };
    let servers: Vec<_> = (0..3).map(|_| Server::run(answers_pings)).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let pool = "rebalance = \"2s\"\nidle_for = \"1s\"";
    let proxy = Proxy::start(&config(&addresses[..2], pool));
    let mut waiting: Vec<_> = (0..24).map(|_| served_client(proxy.at("l"))).collect();
    for client in &mut waiting {
        client.send(b"wait");
    }
    let mut clients: Vec<_> = (0..12).map(|_| served_client(proxy.at("l"))).collect();
    assert!(proxy.reload(&config(&addresses, pool)));
    wait_until_even(&proxy, &servers, &mut clients, 12, 1);
    for client in &mut waiting {
        assert_eq!(client.send(b"ping").read(4), b"ping", "it goes on");
    }
}

/// A check that only connects would not notice this server, which ends each session with an error.
#[test]
fn rebalancing_pauses_if_the_new_server_keeps_no_session() {
    let (echo, fails) = (
        Server::echo(),
        Server::run(|mut stream| {
            let _ = stream.read(&mut [0; 4]).and_then(|_| stream.write_all(b"FATAL"));
        }),
    );
    let pool = "rebalance = \"20s\"\nidle_for = \"1s\"";
    let proxy = Proxy::start(&config(&[echo.address], pool));
    let mut clients: Vec<_> = (0..60).map(|_| served_client(proxy.at("l"))).collect();
    assert!(proxy.reload(&config(&[echo.address, fails.address], pool)));
    eventually("rebalancing pauses", || {
        for client in &mut clients {
            client.0.set_nonblocking(true).unwrap();
            let has_ended = match client.0.read(&mut [0; 5]) {
                Ok(bytes) => bytes == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            if has_ended {
                *client = Client::connect(proxy.at("l"));
                client.send(b"ping");
            }
        }
        let log = proxy.log();
        let pauses = |line: &Value| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("rebalancing pauses"))
        };
        log.iter().any(pauses)
    });
    let moved = ended_sessions(&proxy, "rebalanced");
    assert!((6.0..20.0).contains(&moved), "{moved} of 30 in excess");
}
