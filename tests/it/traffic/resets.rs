//! A reset is relayed as a reset and a clean end as a clean end.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::over_each_path;
use crate::support::client::{Client, small_buffer_client};
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::path::Path;
use crate::support::server::ManualServer;
use crate::support::stream::{fill, read_to_end, reset};
use crate::support::wait_for;
use rustix::process::Signal;
use tokio::time::Instant;

over_each_path! {
    bytes_before_a_servers_reset_arrive_and_then_the_reset,
    a_servers_reset_ends_the_session_though_the_client_never_reads,
    a_clients_reset_resets_the_server_at_once,
    a_clients_reset_resets_a_server_that_does_not_read,
    a_reset_after_the_servers_end_does_not_spoil_the_complete_answer,
    a_session_cut_at_the_drain_timeout_is_reset_on_both_sides,
}

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

fn bytes_before_a_servers_reset_arrive_and_then_the_reset(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    for round in 1..=5 {
        let mut client = small_buffer_client(proxy.at("plain"), 4_096);
        let mut server = manual.session();
        server.write_all(&[9; 50_000]).unwrap();
        // A reset would discard bytes still in the server's send queue.
        wait_for("acequia has read all bytes of the server", || {
            let moved = proxy.metrics().sum("acequia_bytes_total", &[("direction", "down")]);
            (moved >= f64::from(round * 50_000)).then_some(())
        });
        reset(server);
        let (received, end) = read_to_end(&mut client.0);
        assert_eq!((received.len(), end), (50_000, RESET));
    }
    wait_for_ended_sessions(&proxy, "server_reset", 5);
}

fn a_servers_reset_ends_the_session_though_the_client_never_reads(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    let client = small_buffer_client(proxy.at("plain"), 4_096);
    let mut server = manual.session();
    fill(&mut server);
    reset(server);
    wait_for_ended_sessions(&proxy, "server_reset", 1);
    drop(client);
}

fn a_clients_reset_resets_the_server_at_once(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = manual.session();
    client.send(b"request");
    server.read_exact(&mut [0; 7]).unwrap();
    client.reset();
    let began = Instant::now();
    assert_eq!(read_to_end(&mut server).1, RESET);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(proxy.access_lines(1)[0]["ending"], "client_reset");
}

fn a_clients_reset_resets_a_server_that_does_not_read(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = manual.session();
    fill(&mut client.0);
    client.reset();
    wait_for_ended_sessions(&proxy, "client_reset", 1);
    assert_eq!(read_to_end(&mut server).1, RESET, "expected a reset, not a clean end");
}

fn a_reset_after_the_servers_end_does_not_spoil_the_complete_answer(path: Path) {
    const ANSWER_BYTES: usize = 300_000;
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    let mut client = small_buffer_client(proxy.at("plain"), 4_096);
    let mut server = manual.session();
    client.send(b"a request that nobody reads");
    server.peek(&mut [0]).unwrap();
    server.write_all(&[8; ANSWER_BYTES]).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    wait_for("acequia has read all bytes of the server", || {
        let moved = proxy.metrics().sum("acequia_bytes_total", &[("direction", "down")]);
        (moved >= ANSWER_BYTES as f64).then_some(())
    });
    drop(server); // with unread bytes, so the kernel sends a reset
    let (answer, end) = read_to_end(&mut client.0);
    assert_eq!((answer.len(), end), (ANSWER_BYTES, Ok(())));
    wait_for_active_sessions(&proxy, 0);
}

fn a_session_cut_at_the_drain_timeout_is_reset_on_both_sides(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open_with(manual.server.address, "[runtime]\ndrain_timeout = \"100ms\"", "");
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = manual.session();
    client.send(b"half of");
    server.read_exact(&mut [0; 7]).unwrap();
    proxy.signal(Signal::TERM);
    assert_eq!(read_to_end(&mut server).1, RESET);
    client.must_be_reset();
    let stopped = proxy.into_observed().wait();
    assert_eq!(stopped.code, Some(0));
    assert_eq!(stopped.access[0]["ending"], "drained");
}
