//! Idle and half-close timeouts, keepalive, and TCP user timeout.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::over_each_path;
use crate::support::client::{Client, served_client, small_buffer_client};
use crate::support::configs::two_listeners;
use crate::support::counts::{ended_sessions, wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::path::Path;
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, Server};
use crate::support::stream::{SLOW_READER_BUFFER, SLOW_READER_IDLE_TIMEOUT, fill, read_slowly, read_to_end};
use crate::support::{eventually, wait_for};
use tokio::time::Instant;

over_each_path! {
    an_idle_session_is_closed_cleanly,
    an_idle_session_with_undelivered_bytes_is_reset_on_both_sides,
    silent_half_closed_sessions_end_and_trickling_ones_stay,
}

// Only on these two paths does the client connect to the observed proxy itself. On the other paths, a proxy between the
// two would buffer, and the observed proxy would not see when the client reads.
mod slow_reader {
    use super::a_slow_reader_does_not_count_as_idle;

    crate::over_path!(plain Plain: a_slow_reader_does_not_count_as_idle);
    crate::over_path!(encrypted Encrypted: a_slow_reader_does_not_count_as_idle);
}

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

fn an_idle_session_is_closed_cleanly(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "idle_timeout = \"1s\"");
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = manual.session();
    client.send(b"once");
    let began = Instant::now(); // perhaps a little after the proxy has read the bytes
    assert_eq!(client.read_all(), b"");
    assert!(began.elapsed() > Duration::from_millis(900));
    assert_eq!(read_to_end(&mut server), (b"once".to_vec(), Ok(())));
    let line = proxy.access_line();
    assert_eq!(line["ending"], "idle_timeout");
}

fn an_idle_session_with_undelivered_bytes_is_reset_on_both_sides(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "idle_timeout = \"2s\"");
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = manual.session();
    fill(&mut client.0);
    wait_for_ended_sessions(&proxy, "idle_timeout", 1);
    assert_eq!(read_to_end(&mut server).1, RESET);
    assert_eq!(read_to_end(&mut client.0).1, RESET);
}

fn silent_half_closed_sessions_end_and_trickling_ones_stay(path: Path) {
    const SESSIONS: usize = 200;
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "half_close_timeout = \"2s\"");
    // Begins a session that the client or the server half-closes at once.
    let begin_half_closed = |by_client: bool| {
        let mut client = Client::connect(proxy.at("plain"));
        let server = manual.session();
        if by_client {
            client.finish();
        } else {
            server.shutdown(Shutdown::Write).unwrap();
        }
        (client, server)
    };
    let silent: Vec<_> = (0..SESSIONS).map(|number| begin_half_closed(number % 2 == 0)).collect();
    let (mut finished_client, mut trickling_server) = begin_half_closed(true);
    let (mut trickling_client, mut finished_server) = begin_half_closed(false);
    // In each of these two sessions, the side that has not finished sends a byte every 100 ms.
    let mut trickle = || {
        trickling_server.write_all(b".").unwrap();
        trickling_client.send(b".");
        sleep(Duration::from_millis(100));
    };
    wait_for("the silent sessions have ended", || {
        trickle();
        (ended_sessions(&proxy, "half_close_timeout") == SESSIONS as f64).then_some(())
    });
    (0..30).for_each(|_| trickle()); // for 3 s, longer than `half_close_timeout`
    wait_for_active_sessions(&proxy, 2);
    for (mut client, mut server) in silent {
        assert_eq!(
            (client.read_all(), read_to_end(&mut server)),
            (vec![], (vec![], Ok(())))
        );
    }
    drop((trickling_server, trickling_client));
    // The 30 bytes, and at least one that was sent while the silent sessions were still open.
    assert!(finished_client.read_all().len() > 30);
    assert!(read_to_end(&mut finished_server).0.len() > 30);
}

/// The lines of `ss`, with timers, about the established sockets of this proxy that match `filter`.
fn sockets_of(proxy: &Proxy, filter: &str) -> Vec<String> {
    let output = must(Command::new("ss").args(["-tnopH", "state", "established", filter]));
    let of_proxy = format!("pid={},", proxy.pid());
    output
        .lines()
        .filter(|line| line.contains(&of_proxy))
        .map(str::to_owned)
        .collect()
}

/// Waits until the worker of the open session has published its traffic, and so has also had the occasion to set
/// keepalive: once a second, a worker sets the keepalive that is due, and then publishes traffic.
fn wait_for_published_traffic(proxy: &Proxy) {
    eventually("the traffic of the open session is published", || {
        proxy.metrics().sum("acequia_bytes_total", &[]) > 0.0
    });
}

#[test]
fn keepalive_is_set_on_both_sockets_unless_it_is_off() {
    for (keepalive, timer) in [
        (
            r#"keepalive = { idle = "77s", interval = "3s", probes = 2 }"#,
            Some("keepalive,1min1"), // the time left, 1min17sec at first; its last digit is left out
        ),
        (r#"keepalive = "off""#, None),
    ] {
        let server = Server::echo();
        let config = format!("[defaults]\n{keepalive}\n{}", two_listeners(server.address, ""));
        let proxy = Proxy::start(&config);
        let client = served_client(proxy.at("plain"));
        for side in [
            format!("sport = :{}", proxy.at("plain").port()),
            format!("dport = :{}", server.address.port()),
        ] {
            let has_timer = || {
                let sockets = sockets_of(&proxy, &side);
                assert_eq!(sockets.len(), 1, "{side}: {sockets:#?}");
                match timer {
                    Some(timer) => sockets[0].contains(timer),
                    None => sockets[0].contains("timer:(keepalive"),
                }
            };
            match timer {
                // On the connection to the server, keepalive is set within a second after the relay starts.
                Some(_) => eventually(&format!("keepalive at {side}"), has_timer),
                None => {
                    wait_for_published_traffic(&proxy);
                    assert!(!has_timer(), "{side}");
                }
            }
        }
        drop(client);
    }
}

#[test]
fn user_timeout_ends_a_session_whose_client_does_not_read() {
    let manual = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(manual.server.address, "user_timeout = \"2s\""));
    let client = small_buffer_client(proxy.at("plain"), 4_096); // a buffer that is soon full
    let mut server = manual.session();
    fill(&mut server);
    wait_for_ended_sessions(&proxy, "client_lost", 1);
    assert_eq!(read_to_end(&mut server).1, RESET);
    drop(client);
}

fn a_slow_reader_does_not_count_as_idle(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(
        manual.server.address,
        &format!("idle_timeout = \"{SLOW_READER_IDLE_TIMEOUT}\""),
    );
    let mut client = small_buffer_client(proxy.at("plain"), SLOW_READER_BUFFER);
    let mut server = manual.session();
    fill(&mut server);
    read_slowly(|bytes| drop(client.read(bytes)));
    assert_eq!(ended_sessions(&proxy, "idle_timeout"), 0.0);
    eventually("the session ends as idle, now that the client no longer reads", || {
        ended_sessions(&proxy, "idle_timeout") == 1.0
    });
}
