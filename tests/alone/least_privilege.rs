//! It needs no root, and of all that root may do only the capability to bind ports below 1024, if it is to have such.

use std::fs::read_to_string;
use std::net::{SocketAddr, TcpListener};

use crate::support::client::{served_client, server_reached};
use crate::support::counts::wait_for_active_sessions;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use rustix::process::{Signal, geteuid};

const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// CAP_NET_BIND_SERVICE: capability 10.
const BIND_SERVICE: u64 = 1 << 10;

/// An address below 1024 that is free. `None`, said aloud, where that takes no privilege, or only root may give it.
fn low_address() -> Option<SocketAddr> {
    let start = read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let start: u16 = start.trim().parse().unwrap();
    if !geteuid().is_root() || start < 1024 {
        eprintln!("NOT TESTED: this needs root, and low ports that are privileged; here they begin at {start}");
        return None;
    }
    // Nobody else uses this address of loopback.
    let address = |port| SocketAddr::from(([127, 41, 0, 23], port));
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

/// Nobody, with these capabilities and no way to others.
fn as_nobody(config: &str, capabilities: &str) -> Proxy {
    let sets = ["--inh-caps", "--ambient-caps", "--bounding-set"].map(|set| format!("{set}=-all{capabilities}"));
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let proxy = Proxy::setup(config).under(&[&NOBODY[..], &sets].concat()).start();
    let status = read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
    proxy
}

/// What it may do.
fn capabilities(proxy: &Proxy) -> u64 {
    let status = read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    u64::from_str_radix(effective, 16).unwrap()
}

#[test]
fn with_one_capability_nobody_serves_a_low_port_and_reloads_checks_and_drains() {
    let Some(low) = low_address() else { return };
    let beside = SocketAddr::from(([127, 41, 0, 24], low.port()));
    let server = Server::named("s1");
    let proxy = as_nobody(&config(&server, &[low]), ",+net_bind_service");
    assert_eq!(capabilities(&proxy), BIND_SERVICE);
    assert!(proxy.reload(&config(&server, &[low, beside])), "{:#?}", proxy.log());
    assert_eq!(
        (server_reached(low), server_reached(beside)),
        ("s1".into(), "s1".into())
    );
    let next = Server::echo();
    drop(server);
    eventually("its checks see that the server is gone", || {
        proxy.metrics().sum("acequia_server_up", &[]) == 0.0
    });
    assert!(proxy.reload(&config(&next, &[low, beside])), "{:#?}", proxy.log());
    eventually("its checks see the other one", || {
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
fn without_any_capability_nobody_serves_high_ports_and_a_reload_that_wants_a_low_one_changes_nothing() {
    let Some(low) = low_address() else { return };
    let high = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::named("s1");
    let proxy = as_nobody(&config(&server, &[high]), "");
    assert_eq!(capabilities(&proxy), 0);
    assert!(!proxy.reload(&config(&server, &[high, low])));
    let log = format!("{:?}", proxy.log());
    assert!(
        log.contains("CAP_NET_BIND_SERVICE") && log.contains(&low.to_string()),
        "{log}"
    );
    assert_eq!(server_reached(proxy.at("l1")), "s1");
    assert_eq!(proxy.stop().code, Some(0));
}
