//! Networks that drop packets, have small segments, or run out of ports; built from namespaces, which needs root.

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

/// The server that answers, and how long that took.
fn timed_session(address: SocketAddr) -> (String, Duration) {
    let began = Instant::now();
    (server_reached(address), began.elapsed())
}

fn failures(proxy: &Proxy, reason: &str) -> f64 {
    proxy
        .metrics()
        .sum("acequia_connect_failures_total", &[("reason", reason)])
}

#[test]
fn a_server_that_drops_packets_is_ejected_after_three_timeouts() {
    let Some(network) = Namespaces::enter(3) else { return };
    let names = ["one", "two", "three"];
    let servers: Vec<_> = (1..=3)
        .map(|n| Server::named_on(network.listener(n), names[n - 1]))
        .collect();
    let list = crate::support::server::list(&servers.iter().collect::<Vec<_>>());
    let keys = "connect_timeout = \"500ms\"\nhealth = { check = \"off\", eject_for = \"5m\", eject_max_for = \"5m\" }";
    let proxy = Proxy::start(&config(&list, keys));
    let mut seen: Vec<_> = (0..12).map(|_| server_reached(proxy.at("plain"))).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "expected all three servers to serve at first");
    network.drop_packets(1);
    let asked: Vec<_> = (0..60).map(|_| timed_session(proxy.at("plain"))).collect();
    assert!(asked.iter().all(|(name, _)| name == "two" || name == "three"));
    assert_eq!(
        failures(&proxy, "timeout"),
        3.0,
        "expected ejection after three timeouts"
    );
    let slow = asked
        .iter()
        .filter(|(_, took)| *took >= Duration::from_millis(500))
        .count();
    assert_eq!(slow, 3, "{asked:?}");
}

#[test]
fn with_default_settings_a_server_that_drops_packets_is_ejected_and_returns() {
    let Some(network) = Namespaces::enter(2) else { return };
    let servers = [
        Server::named_on(network.listener(1), "one"),
        Server::named_on(network.listener(2), "two"),
    ];
    let proxy = Proxy::start(&config(&crate::support::server::list(&[&servers[0], &servers[1]]), ""));
    network.drop_packets(1);
    let mut slow = 0;
    let mut quick_in_a_row = 0;
    while quick_in_a_row < 40 {
        let (name, took) = timed_session(proxy.at("plain"));
        assert_eq!(name, "two");
        if took >= Duration::from_secs(1) {
            slow += 1;
            quick_in_a_row = 0;
        } else {
            quick_in_a_row += 1;
        }
        assert!(slow <= 3, "expected at most 3 slow clients, got {slow}");
    }
    network.accept_packets(1);
    eventually("server one is used again", || {
        server_reached(proxy.at("plain")) == "one"
    });
}

#[test]
fn timed_out_checks_leak_no_descriptors() {
    let Some(network) = Namespaces::enter(1) else { return };
    let server = Server::named_on(network.listener(1), "one");
    let health = "health = { interval = \"20ms\", timeout = \"60ms\" }";
    let proxy = Proxy::start(&config(&crate::support::server::list(&[&server]), health));
    let checks = |result| {
        let labels = [("result", result)];
        proxy.metrics().sum("acequia_health_checks_total", &labels)
    };
    let baseline = descriptors(&proxy);
    network.drop_packets(1);
    eventually("40 checks have timed out", || checks("timeout") >= 40.0);
    // `+ 1`: one check may be under way.
    descriptors_fall_to(&proxy, baseline + 1);
    assert_eq!(checks("fail"), 0.0);
    network.accept_packets(1);
    eventually("server one is used again", || {
        server_reached(proxy.at("plain")) == "one"
    });
}

#[test]
fn small_segments_that_fill_the_pipe_do_not_end_the_stream() {
    const SEGMENTS: usize = 4_000;
    const SEGMENT_BYTES: usize = 1_448;
    let Some(network) = Namespaces::enter(2) else { return };
    // The kernel would merge the segments, unless these offloads are off.
    for number in [1, 2] {
        for (namespace, device) in [(0, format!("v{number}")), (number, "v0".to_owned())] {
            let done = network.run(namespace, &format!("ethtool -K {device} gso off tso off gro off"));
            assert_eq!(done.code, Some(0), "{}", done.stderr);
        }
    }
    // Both sides write, and read only after a second: by then the pipe is full of small segments. Returns whether the
    // other side's exact bytes have come.
    let exchange = |mut stream: TcpStream| {
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
    let listener = network.listener(1);
    let address = listener.local_addr().unwrap();
    let server = spawn(move || exchange(listener.accept().unwrap().0));
    let proxy = Proxy::start(&config(&format!("\"{address}\""), "health = { check = \"off\" }"));
    let pipes_before = pipes(&proxy);
    let client = network.client(2, proxy.at("plain"));
    assert!(exchange(client.0), "the client did not get the server's exact bytes");
    assert!(
        server.join().unwrap(),
        "the server did not get the client's exact bytes"
    );
    assert!(
        pipes(&proxy) > pipes_before,
        "nothing was spliced: the test proves nothing"
    );
    assert_eq!(proxy.access_line()["bytes_down"], SEGMENTS * SEGMENT_BYTES);
}

#[test]
fn when_ports_to_one_server_run_out_the_next_server_is_used_and_none_is_marked_down() {
    const SESSIONS: usize = 270;
    let Some(network) = Namespaces::enter(2) else { return };
    raise_descriptor_limit();
    let servers: Vec<_> = (0..3).map(|_| Server::named_on(network.listener(1), "here")).collect();
    // The first server's weight attracts nearly all sessions: the ports to it run out after 100.
    let entry = |(n, server): (usize, &Server)| {
        let weight = if n == 0 { 100 } else { 1 };
        format!("{{ address = \"{}\", weight = {weight} }}", server.address)
    };
    let list: Vec<_> = servers.iter().enumerate().map(entry).collect();
    let checks = "health = { interval = \"20ms\", fall = 1 }";
    let proxy = Proxy::start(&config(&list.join(", "), checks));
    // The range is that of the namespace in which this thread and acequia run. acequia listens already, so that its own
    // ports are not in the range.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20099").unwrap();
    let clients = (0..SESSIONS).map(|_| {
        let mut client = network.client(2, proxy.at("plain"));
        assert_eq!(client.read_some(), "here");
        client
    });
    let clients: Vec<_> = clients.collect();
    assert!(failures(&proxy, "no_ports") >= 1.0);
    // Checks of the first server have no port left either, which must not count as a failure of the server.
    let passed = || {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "pass")])
    };
    let before = passed();
    eventually("checks of the other servers go on", || passed() > before + 50.0);
    let shortage = "cannot check servers: out of local ports, file descriptors, processes or memory";
    eventually("the shortage is logged", || log_count(&proxy, shortage) > 0);
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_health_transitions_total", &[("to", "down")]), 0.0);
    assert_eq!(
        metrics.sum("acequia_connect_failures_total", &[]),
        failures(&proxy, "no_ports")
    );
    assert_eq!(metrics.sum("acequia_server_up", &[]), 3.0);
    assert_eq!(log_count(&proxy, "server is ejected"), 0);
    assert_eq!(
        servers[0].sessions(),
        100,
        "expected as many sessions as there are ports"
    );
    drop(clients);
}

/// The kernel gives EADDRNOTAVAIL for this, as it does when no port is left.
#[test]
fn a_server_of_an_address_family_in_which_the_host_has_no_address_is_unreachable() {
    let Some(_network) = Namespaces::enter(1) else { return };
    fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    let proxy = Proxy::start(&config("\"[2001:db8::1]:1\"", "health = { check = \"off\" }"));
    assert_eq!(server_reached(proxy.at("plain")), "");
    assert!(failures(&proxy, "unreachable") >= 1.0);
    assert_eq!(failures(&proxy, "no_ports"), 0.0);
    let no_ports = "all local ports are in use for connections to a server";
    assert_eq!(log_count(&proxy, no_ports), 0);
}
