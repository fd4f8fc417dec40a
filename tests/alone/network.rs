//! Networks that lose packets, have small segments, or run out of ports: made of namespaces, which takes root.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::support::client::server_reached;
use crate::support::counts::log_count;
use crate::support::eventually;
use crate::support::limits::raise_descriptor_limit;
use crate::support::namespaces::Namespaces;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::{descriptors, descriptors_fall_to, pipes};
use tokio::time::Instant;

fn config(servers: &str, keys: &str) -> String {
    format!(
        r#"
        [listeners.plain]
        bind = "0.0.0.0:0"
        pool = "all"

        [pools.all]
        servers = [{servers}]
        {keys}
        "#
    )
}

/// Who answers, and how long that took.
fn asked(address: SocketAddr) -> (String, Duration) {
    let began = Instant::now();
    (server_reached(address), began.elapsed())
}

fn failures(proxy: &Proxy, reason: &str) -> f64 {
    proxy
        .metrics()
        .sum("acequia_connect_failures_total", &[("reason", reason)])
}

#[test]
fn a_server_that_swallows_packets_costs_three_clients_a_timeout_and_nobody_else() {
    let Some(star) = Namespaces::enter(3) else { return };
    let names = ["one", "two", "three"];
    let servers: Vec<_> = (1..=3)
        .map(|n| Server::named_on(star.listener(n), names[n - 1]))
        .collect();
    let list = crate::support::server::list(&servers.iter().collect::<Vec<_>>());
    let keys = "connect_timeout = \"500ms\"\nhealth = { check = \"off\", eject_for = \"5m\", eject_max_for = \"5m\" }";
    let proxy = Proxy::start(&config(&list, keys));
    let mut seen: Vec<_> = (0..12).map(|_| server_reached(proxy.at("plain"))).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "all of them serve at first");
    star.swallow(1);
    let asked: Vec<_> = (0..60).map(|_| asked(proxy.at("plain"))).collect();
    assert!(asked.iter().all(|(name, _)| name == "two" || name == "three"));
    assert_eq!(failures(&proxy, "timeout"), 3.0, "out after three");
    let slow = asked
        .iter()
        .filter(|(_, took)| *took >= Duration::from_millis(500))
        .count();
    assert_eq!(slow, 3, "{asked:?}");
}

#[test]
fn with_the_defaults_too_and_it_comes_back() {
    let Some(star) = Namespaces::enter(2) else { return };
    let servers = [
        Server::named_on(star.listener(1), "one"),
        Server::named_on(star.listener(2), "two"),
    ];
    let proxy = Proxy::start(&config(&crate::support::server::list(&[&servers[0], &servers[1]]), ""));
    star.swallow(1);
    let mut slow = 0;
    let mut quick_in_a_row = 0;
    while quick_in_a_row < 40 {
        let (name, took) = asked(proxy.at("plain"));
        assert_eq!(name, "two");
        if took >= Duration::from_secs(1) {
            slow += 1;
            quick_in_a_row = 0;
        } else {
            quick_in_a_row += 1;
        }
        assert!(slow <= 3, "a fourth client has paid");
    }
    star.swallow_no_more(1);
    eventually("it is back", || server_reached(proxy.at("plain")) == "one");
}

#[test]
fn checks_of_a_server_that_swallows_packets_leave_nothing_behind() {
    let Some(star) = Namespaces::enter(1) else { return };
    let server = Server::named_on(star.listener(1), "one");
    let health = "health = { interval = \"20ms\", timeout = \"60ms\" }";
    let proxy = Proxy::start(&config(&crate::support::server::list(&[&server]), health));
    let checks = |result| {
        let labels = [("result", result)];
        proxy.metrics().sum("acequia_health_checks_total", &labels)
    };
    let baseline = descriptors(&proxy);
    star.swallow(1);
    eventually("many have timed out", || checks("timeout") >= 40.0);
    // One is under way, and perhaps a visit of ours to the admin port.
    descriptors_fall_to(&proxy, baseline + 1);
    assert_eq!(checks("fail"), 0.0);
    star.swallow_no_more(1);
    eventually("it is back", || server_reached(proxy.at("plain")) == "one");
}

#[test]
fn small_segments_that_fill_the_pipe_are_no_end() {
    const SEGMENTS: usize = 4_000;
    const SEGMENT_BYTES: usize = 1_448;
    let Some(star) = Namespaces::enter(2) else { return };
    for number in [1, 2] {
        for (namespace, device) in [(0, format!("v{number}")), (number, "v0".to_owned())] {
            let done = star.run(namespace, &format!("ethtool -K {device} gso off tso off gro off"));
            assert_eq!(done.code, Some(0), "{}", done.stderr);
        }
    }
    // Both write and sleep, then both read.
    let talk = |mut stream: TcpStream| {
        stream.set_nodelay(true).unwrap();
        let mut writes = stream.try_clone().unwrap();
        let writer = spawn(move || {
            for segment in 0..SEGMENTS {
                writes.write_all(&[segment as u8; SEGMENT_BYTES]).unwrap();
            }
            writes.shutdown(Shutdown::Write).unwrap();
        });
        sleep(Duration::from_secs(1));
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        writer.join().unwrap();
        bytes.len() == SEGMENTS * SEGMENT_BYTES
            && bytes
                .chunks(SEGMENT_BYTES)
                .enumerate()
                .all(|(segment, bytes)| bytes.iter().all(|byte| *byte == segment as u8))
    };
    let listener = star.listener(1);
    let address = listener.local_addr().unwrap();
    let server = spawn(move || talk(listener.accept().unwrap().0));
    let proxy = Proxy::start(&config(&format!("\"{address}\""), "health = { check = \"off\" }"));
    let pipes_before = pipes(&proxy);
    let client = star.client(2, proxy.at("plain"));
    assert!(talk(client.0), "what the server said");
    assert!(server.join().unwrap(), "what the client said");
    assert!(pipes(&proxy) > pipes_before, "none of it was spliced");
    assert_eq!(proxy.access_line()["bytes_down"], SEGMENTS * SEGMENT_BYTES);
}

#[test]
fn when_the_ports_towards_one_server_are_used_up_the_next_is_taken_and_nobody_blamed() {
    const SESSIONS: usize = 270;
    let Some(star) = Namespaces::enter(2) else { return };
    raise_descriptor_limit();
    let servers: Vec<_> = (0..3).map(|_| Server::named_on(star.listener(1), "here")).collect();
    // Nearly all want the first: it is full after 100 of them.
    let entry = |(n, server): (usize, &Server)| {
        let weight = if n == 0 { 100 } else { 1 };
        format!("{{ address = \"{}\", weight = {weight} }}", server.address)
    };
    let list: Vec<_> = servers.iter().enumerate().map(entry).collect();
    let checks = "health = { interval = \"20ms\", fall = 1 }";
    let proxy = Proxy::start(&config(&list.join(", "), checks));
    // Of this thread's namespace. Ports that are listened on do not count: hence not before acequia has its own.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20099").unwrap();
    let clients = (0..SESSIONS).map(|_| {
        let mut client = star.client(2, proxy.at("plain"));
        assert_eq!(client.read_some(), "here");
        client
    });
    let clients: Vec<_> = clients.collect();
    assert!(failures(&proxy, "no_ports") >= 1.0);
    // The checks have no port either, and make no more of it.
    let passed = || {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "pass")])
    };
    let before = passed();
    eventually("checks of the others go on", || passed() > before + 50.0);
    assert!(log_count(&proxy, "cannot check servers, for a shortage of our own") > 0);
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_health_transitions_total", &[("to", "down")]), 0.0);
    assert_eq!(
        metrics.sum("acequia_connect_failures_total", &[]),
        failures(&proxy, "no_ports")
    );
    assert_eq!(metrics.sum("acequia_server_up", &[]), 3.0);
    assert_eq!(log_count(&proxy, "server is ejected"), 0);
    assert_eq!(servers[0].sessions(), 100, "all the ports there are");
    drop(clients);
}
