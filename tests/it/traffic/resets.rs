//! A reset passes through, and is never mistaken for a clean end nor the other way round.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::support::client::{Client, small_buffer_client};
use crate::support::configs::two_listeners;
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::proxy::Proxy;
use crate::support::server::ManualServer;
use crate::support::stream::{fill, read_to_end, reset};
use crate::support::wait_for;
use rustix::process::Signal;
use tokio::time::Instant;

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

#[test]
fn what_a_server_said_before_its_reset_arrives_and_then_the_reset() {
    let hand = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    for round in 1..=5 {
        let mut client = small_buffer_client(proxy.at("plain"), 4_096);
        let mut server = hand.session();
        server.write_all(&[9; 50_000]).unwrap();
        // What is still in its own queue a reset would throw away.
        wait_for("acequia has it", || {
            let moved = proxy.metrics().sum("acequia_bytes_total", &[("direction", "down")]);
            (moved >= f64::from(round * 50_000)).then_some(())
        });
        reset(server);
        let (received, end) = read_to_end(&mut client.0);
        assert_eq!((received.len(), end), (50_000, RESET));
    }
    wait_for_ended_sessions(&proxy, "server_reset", 5);
}

#[test]
fn a_client_that_never_reads_does_not_keep_a_server_that_reset() {
    let hand = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let client = small_buffer_client(proxy.at("plain"), 4_096);
    let mut server = hand.session();
    fill(&mut server);
    reset(server);
    wait_for_ended_sessions(&proxy, "server_reset", 1);
    drop(client);
}

#[test]
fn a_clients_reset_ends_the_servers_side_at_once() {
    let hand = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = hand.session();
    client.send(b"request");
    server.read_exact(&mut [0; 7]).unwrap();
    client.reset();
    let began = Instant::now();
    assert_eq!(read_to_end(&mut server).1, RESET);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(proxy.access_lines(1)[0]["ending"], "client_reset");
}

#[test]
fn also_when_the_server_does_not_read() {
    let hand = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = hand.session();
    fill(&mut client.0);
    client.reset();
    wait_for_ended_sessions(&proxy, "client_reset", 1);
    assert_eq!(read_to_end(&mut server).1, RESET, "what was cut does not look complete");
}

#[test]
fn a_complete_answer_and_then_a_reset_is_a_complete_answer() {
    const ANSWER_BYTES: usize = 300_000;
    let hand = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let mut client = small_buffer_client(proxy.at("plain"), 4_096);
    let mut server = hand.session();
    client.send(b"a request that nobody reads");
    server.peek(&mut [0]).unwrap();
    server.write_all(&[8; ANSWER_BYTES]).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    wait_for("acequia has all of it", || {
        let moved = proxy.metrics().sum("acequia_bytes_total", &[("direction", "down")]);
        (moved >= ANSWER_BYTES as f64).then_some(())
    });
    drop(server); // with bytes unread: that is a reset
    let (answer, end) = read_to_end(&mut client.0);
    assert_eq!((answer.len(), end), (ANSWER_BYTES, Ok(())));
    wait_for_active_sessions(&proxy, 0);
}

#[test]
fn who_is_cut_at_the_end_of_a_drain_sees_a_reset_on_both_sides() {
    let hand = ManualServer::new();
    let config = format!(
        "[runtime]\ndrain_timeout = \"100ms\"\n{}",
        two_listeners(hand.server.address, "")
    );
    let proxy = Proxy::start(&config);
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = hand.session();
    client.send(b"half of");
    server.read_exact(&mut [0; 7]).unwrap();
    proxy.signal(Signal::TERM);
    assert_eq!(read_to_end(&mut server).1, RESET);
    client.must_be_reset();
    let stopped = proxy.wait();
    assert_eq!(stopped.code, Some(0));
    assert_eq!(stopped.access[0]["ending"], "drained");
}
