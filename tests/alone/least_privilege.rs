//! acequia runs without root: with one capability if it listens on a port below 1024, and without any if it listens on
//! high ports only.

use std::fs::read_to_string;
use std::net::{SocketAddr, TcpListener};

use crate::support::client::{served_client, server_reached};
use crate::support::counts::{log_lines, wait_for_active_sessions};
use crate::support::eventually;
use crate::support::process::NOBODY;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use rustix::process::{Signal, geteuid};

/// CAP_NET_BIND_SERVICE: capability 10.
const BIND_SERVICE: u64 = 1 << 10;

/// A free address with a port below 1024 and the IP address 127.41.0.`last`, which no other test uses. `None`, with a
/// note on standard error, where such ports are not privileged or the test does not run as root.
fn low_address(last: u8) -> Option<SocketAddr> {
    let start = read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let start: u16 = start.trim().parse().unwrap();
    if !geteuid().is_root() || start < 1024 {
        eprintln!("NOT TESTED: needs root and privileged ports; here unprivileged ports start at {start}");
        return None;
    }
    let address = |port| SocketAddr::from(([127, 41, 0, last], port));
    (1..1024)
        .map(address)
        .find(|address| TcpListener::bind(address).is_ok())
}

fn config(server: &Server, listeners: &[SocketAddr]) -> String {
    let listener = |(number, address)| format!("[listeners.l{number}]\nbind = \"{address}\"\npool = \"p\"\n");
    let listeners: String = (1..).zip(listeners).map(listener).collect();
    let health = "health = { interval = \"100ms\", fall = 1 }";
    format!("{listeners}[pools.p]\nservers = [\"{}\"]\n{health}\n", server.address)
}

/// A proxy run by `nobody`, with these capabilities and no way to gain others. `added`: the capabilities as setpriv(1)
/// writes them, each with `,+` in front.
fn as_nobody(config: &str, added: &str) -> Proxy {
    let sets = ["--inh-caps", "--ambient-caps", "--bounding-set"].map(|set| format!("{set}=-all{added}"));
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let proxy = Proxy::setup(config).under(&[&NOBODY[..], &sets].concat()).start();
    let status = read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
    proxy
}

/// The effective capabilities of the proxy, as bits.
fn capabilities(proxy: &Proxy) -> u64 {
    let status = read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    u64::from_str_radix(effective, 16).unwrap()
}

#[test]
fn an_unprivileged_user_with_cap_net_bind_service_serves_a_low_port_and_can_reload_and_drain() {
    let Some(low) = low_address(23) else { return };
    let second = SocketAddr::from(([127, 41, 0, 24], low.port()));
    let server = Server::named("s1");
    let proxy = as_nobody(&config(&server, &[low]), ",+net_bind_service");
    assert_eq!(capabilities(&proxy), BIND_SERVICE);
    assert!(proxy.reload(&config(&server, &[low, second])), "{:#?}", proxy.log());
    assert_eq!(
        (server_reached(low), server_reached(second)),
        ("s1".into(), "s1".into())
    );
    let next = Server::echo();
    drop(server);
    eventually("checks find the server down", || {
        proxy.metrics().sum("acequia_server_up", &[]) == 0.0
    });
    assert!(proxy.reload(&config(&next, &[low, second])), "{:#?}", proxy.log());
    eventually("checks find the next server up", || {
        proxy.metrics().sum("acequia_server_up", &[]) == 1.0
    });
    let client = served_client(low);
    wait_for_active_sessions(&proxy, 1);
    proxy.signal(Signal::TERM);
    eventually("it is draining", || proxy.get("/ready").0 == 503);
    drop(client);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn without_capabilities_a_reload_that_needs_a_low_port_is_rejected_and_high_ports_stay_served() {
    let Some(low) = low_address(25) else { return };
    let high = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::named("s1");
    let proxy = as_nobody(&config(&server, &[high]), "");
    assert_eq!(capabilities(&proxy), 0);
    assert!(!proxy.reload(&config(&server, &[high, low])));
    let line = log_lines(&proxy, "not reloaded: the current configuration stays in force", 1)[0].to_string();
    assert!(
        line.contains("CAP_NET_BIND_SERVICE") && line.contains(&low.to_string()),
        "{line}"
    );
    assert_eq!(server_reached(proxy.at("l1")), "s1");
    assert_eq!(proxy.stop().code, Some(0));
}
