//! A reset passes through, and is never mistaken for a clean end nor the other way round.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::client::narrow_client;
use crate::support::configs::two_listeners;
use crate::support::counts::{active_becomes, ended_becomes};
use crate::support::found;
use crate::support::proxy::Proxy;
use crate::support::server::Hand;
use crate::support::stream::{fill, read_to_end, reset};
use rustix::process::Signal;
use tokio::time::Instant;

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

#[test]
fn what_a_server_said_before_its_reset_arrives_and_then_the_reset() {
    let hand = Hand::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    for round in 1..=5 {
        let mut client = narrow_client(proxy.at("plain"), 4_096);
        let mut server = hand.session();
        server.write_all(&[9; 50_000]).unwrap();
        // What is still in its own queue a reset would throw away.
        found("acequia has it", || {
            let moved = proxy.metrics().sum("acequia_bytes_total", &[("direction", "down")]);
            (moved >= f64::from(round * 50_000)).then_some(())
        });
        reset(server);
        let (received, end) = read_to_end(&mut client.0);
        assert_eq!((received.len(), end), (50_000, RESET));
    }
    ended_becomes(&proxy, "server_reset", 5);
}

#[test]
fn a_client_that_never_reads_does_not_keep_a_server_that_reset() {
    let hand = Hand::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let client = narrow_client(proxy.at("plain"), 4_096);
    let mut server = hand.session();
    fill(&mut server);
    reset(server);
    ended_becomes(&proxy, "server_reset", 1);
    drop(client);
}

#[test]
fn a_clients_reset_ends_the_servers_side_at_once() {
    let hand = Hand::new();
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
    let hand = Hand::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = hand.session();
    fill(&mut client.0);
    client.reset();
    ended_becomes(&proxy, "client_reset", 1);
    assert_eq!(read_to_end(&mut server).1, RESET, "what was cut does not look complete");
}

#[test]
fn a_complete_answer_and_then_a_reset_is_a_complete_answer() {
    const ANSWER_BYTES: usize = 300_000;
    let hand = Hand::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let mut client = narrow_client(proxy.at("plain"), 4_096);
    let mut server = hand.session();
    client.send(b"a request that nobody reads");
    server.peek(&mut [0]).unwrap();
    server.write_all(&[8; ANSWER_BYTES]).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    found("acequia has all of it", || {
        let moved = proxy.metrics().sum("acequia_bytes_total", &[("direction", "down")]);
        (moved >= ANSWER_BYTES as f64).then_some(())
    });
    drop(server); // with bytes unread: that is a reset
    let (answer, end) = read_to_end(&mut client.0);
    assert_eq!((answer.len(), end), (ANSWER_BYTES, Ok(())));
    active_becomes(&proxy, 0);
}

#[test]
fn who_is_cut_at_the_end_of_a_drain_sees_a_reset_on_both_sides() {
    let hand = Hand::new();
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
