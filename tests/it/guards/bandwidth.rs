//! Guards that limit bandwidth. The rates are low enough for a debug build on a busy machine.

use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::thread::scope;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::client::{Client, assert_echoes, served_client};
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{PATIENCE, configs};

const MIB: u64 = 1 << 20;

/// A server that sends without end.
fn endless() -> Server {
    Server::run(|mut stream| {
        let block = [7; 64 << 10];
        while stream.write_all(&block).is_ok() {}
    })
}

fn config(server: &Server, guard: &str) -> String {
    [
        format!("[runtime]\nworkers = 1\n[guards.g]\n{guard}\n"),
        configs::listener("limited", "p", "guards = \"g\""),
        configs::listener("free", "p", ""),
        configs::pool("p", &[server.address], "health = { check = \"off\" }"),
    ]
    .concat()
}

/// Bytes that a client reads in this time.
fn read_for(client: &mut Client, time: Duration) -> u64 {
    let (mut block, mut total, end) = (vec![0; 64 << 10], 0, Instant::now() + time);
    while Instant::now() < end {
        total += client.0.read(&mut block).unwrap() as u64;
    }
    total
}

/// Asserts that one of three rounds succeeds. They compare throughput with the real clock, and a busy machine may spoil
/// any round; a wrong limit fails in all three.
fn in_one_of_three_rounds(mut round: impl FnMut() -> Result<(), String>) {
    let failures: Vec<_> = (0..3).map_while(|_| round().err()).collect();
    assert!(failures.len() < 3, "{failures:#?}");
}

fn near(bytes: u64, expected: u64, tolerance: f64) -> Result<(), String> {
    let error = (bytes as f64 / expected as f64 - 1.0).abs();
    let is_near = error < tolerance;
    is_near
        .then_some(())
        .ok_or_else(|| format!("{bytes} bytes, expected {expected}"))
}

#[test]
fn one_session_gets_the_bandwidth_and_eight_share_it() {
    let server = endless();
    let proxy = Proxy::start(&config(&server, "bandwidth = \"20MiB/s\""));
    let time = Duration::from_secs(4);
    in_one_of_three_rounds(|| {
        let mut alone = Client::connect(proxy.at("limited"));
        near(read_for(&mut alone, time), 80 * MIB, 0.1)
    });
    in_one_of_three_rounds(|| {
        let shares: Vec<u64> = scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| read_for(&mut Client::connect(proxy.at("limited")), time)))
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let all: u64 = shares.iter().sum();
        near(all, 80 * MIB, 0.1)?;
        shares.iter().try_for_each(|share| near(*share, all / 8, 0.15))
    });
}

#[test]
fn each_session_has_its_own_limit_in_each_direction() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "bandwidth_per_session = \"1MiB/s\""));
    in_one_of_three_rounds(|| {
        let began = Instant::now();
        scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_echoes(&Client::connect(proxy.at("limited")), 2 << 20));
            }
        });
        let took = began.elapsed();
        // All directions of all sessions take the same 2 s. If two of them shared a limit, they would take 4 s.
        assert!(took > Duration::from_millis(1_800), "{took:?}");
        if took < Duration::from_secs(3) {
            Ok(())
        } else {
            Err(format!("{took:?}"))
        }
    });
}

/// The server asks for a password, and the client sends 400 KiB instead of a password.
#[test]
fn a_long_postgresql_login_does_not_escape_the_limit() {
    const STARTUP: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0bob\0\0";
    const SENT: usize = 400 << 10;
    let (sender, receiver) = channel();
    let server = Server::run(move |mut stream| {
        let mut read = vec![0; SENT];
        stream.read_exact(&mut read[..STARTUP.len()]).unwrap();
        stream.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
        let began = Instant::now();
        stream.read_exact(&mut read).unwrap();
        sender.send(began.elapsed()).unwrap();
    });
    let config = [
        String::from("[guards.g]\nbandwidth_per_session = \"100KiB/s\"\n"),
        configs::listener("limited", "p", "guards = \"g\"\nprotocol = \"postgres\""),
        configs::pool("p", &[server.address], "health = { check = \"off\" }"),
    ];
    let proxy = Proxy::start(&config.concat());
    let mut client = Client::connect(proxy.at("limited"));
    client.send(STARTUP);
    assert_eq!(client.read(9)[0], b'R');
    client.send(&[b'p'; SENT]);
    let took = receiver.recv_timeout(PATIENCE).unwrap();
    // The first 80 KiB are not limited (`CLIENT_BYTES_MAX`). The other 320 KiB take 3.2 s.
    assert!(took > Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_limited_session_does_not_slow_others_on_its_worker() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "bandwidth = \"1KiB/s\""));
    let mut limited = Client::connect(proxy.at("limited"));
    limited.send(&[1; 64 << 10]);
    let mut free = served_client(proxy.at("free"));
    let began = Instant::now();
    for _ in 0..1_000 {
        free.send(b"ping");
        assert_eq!(free.read(4), b"ping");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    // A session that waits for bandwidth still notices that its client is gone.
    limited.reset();
    wait_for_ended_sessions(&proxy, "client_reset", 1);
}

/// Four sessions share 1 KiB/s in turns of 1 KiB: each waits for about 4 s between two turns, which is longer than
/// `idle_timeout`. They become idle once they have nothing more to send.
#[test]
fn a_session_is_not_idle_while_it_waits_for_bandwidth() {
    let server = Server::echo();
    let config = [
        String::from("[guards.g]\nbandwidth = \"1KiB/s\"\n"),
        configs::listener("limited", "p", "guards = \"g\"\nidle_timeout = \"2s\""),
        configs::pool("p", &[server.address], "health = { check = \"off\" }"),
    ];
    let proxy = Proxy::start(&config.concat());
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(proxy.at("limited"))).collect();
    for client in &mut clients {
        client.send(&[1; 2 << 10]);
    }
    for client in &mut clients {
        assert_eq!(client.read(2 << 10), [1; 2 << 10]);
    }
    wait_for_ended_sessions(&proxy, "idle_timeout", 4);
}

/// At 1 KiB/s, in turns of 1 KiB, the last of the 60 sessions would have its first turn after a minute.
#[test]
fn a_new_bandwidth_applies_to_waiting_sessions() {
    let server = Server::echo();
    for guard in [
        "bandwidth = \"100MiB/s\"",
        "report_only = true\nbandwidth = \"1KiB/s\"",
        "sessions = 5000",
    ] {
        let proxy = Proxy::start(&config(&server, "bandwidth = \"1KiB/s\""));
        let mut clients: Vec<_> = (0..60).map(|_| Client::connect(proxy.at("limited"))).collect();
        for client in &mut clients {
            client.send(&[1; 2 << 10]);
        }
        wait_for_active_sessions(&proxy, 60);
        assert!(proxy.reload(&config(&server, guard)));
        let began = Instant::now();
        for client in &mut clients {
            assert_eq!(client.read(2 << 10), [1; 2 << 10]);
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(15), "{guard}: {took:?}");
    }
}

#[test]
fn a_removed_guard_no_longer_limits_open_sessions() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "bandwidth = \"1KiB/s\""));
    let mut client = Client::connect(proxy.at("limited"));
    client.send(&[1; 64 << 10]);
    wait_for_active_sessions(&proxy, 1);
    let without = config(&server, "")
        .replace("[guards.g]", "")
        .replace("guards = \"g\"", "");
    assert!(proxy.reload(&without));
    let began = Instant::now();
    assert_eq!(client.read(64 << 10), [1; 64 << 10]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "the guard still limits: {took:?}");
}
