//! Health checks, and their effect on which servers get sessions and how many.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::support::client::server_reached;
use crate::support::configs::one_pool;
use crate::support::counts::log_lines;
use crate::support::eventually;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::tls::{tls_server, tls_server_of_many};

fn config(servers: &[SocketAddr], pool: &str, health: &str) -> String {
    one_pool(servers, &format!("{pool}\n[pools.p.health]\n{health}"))
}

fn health(proxy: &Proxy, server: SocketAddr) -> serde_json::Value {
    proxy.server("p", &server.to_string())["health"].clone()
}

/// Opens this many sessions, and returns how many of them each server got.
fn shares(proxy: &Proxy, sessions: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..sessions {
        *shares.entry(server_reached(proxy.at("l"))).or_default() += 1;
    }
    shares
}

#[test]
fn a_tls_check_tests_the_handshake_shows_the_expiry_and_can_verify_the_certificate() {
    let (tls, plain) = (tls_server("db.example"), Server::named("plain"));
    let proxy = Proxy::start(&config(
        &[tls.address, plain.address],
        "",
        "check = \"tls\"\ntimeout = \"300ms\"",
    ));
    assert_eq!(
        (health(&proxy, tls.address), health(&proxy, plain.address)),
        ("up".into(), "down".into())
    );
    let expiry = |server: SocketAddr| {
        let labels = [("pool", "p"), ("server", &*server.to_string())];
        let metrics = proxy.metrics();
        let series = metrics.series("acequia_server_certificate_expiry_timestamp_seconds", &labels);
        series.first().map(|series| series.value)
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(expiry(tls.address) > Some(now.as_secs_f64()));
    assert_eq!(expiry(plain.address), None);
    // The certificate is self-signed.
    assert!(proxy.reload(&config(
        &[tls.address],
        "",
        "check = \"tls\"\nverify = true\nsni = \"db.example\"\nfall = 1"
    )));
    eventually("the check rejects the certificate", || {
        health(&proxy, tls.address) == "down"
    });
}

#[test]
fn a_certificate_with_thousands_of_names_makes_a_short_reason() {
    const REASON_CHARS_MAX: usize = 256;
    let names = (0..2_500).map(|number| format!("host-{number}.example.com")).collect();
    let (server, certificate) = tls_server_of_many(names);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, certificate).unwrap();
    let check = format!("check = \"tls\"\nverify = true\nsni = \"other.example\"\nca_file = {file:?}");
    let proxy = Proxy::start(&config(&[server.address], "", &check));
    let reason = proxy.server("p", &server.address.to_string())["reason"].clone();
    let reason = reason.as_str().unwrap();
    assert!(reason.contains("other.example") && reason.ends_with('…'), "{reason}");
    assert_eq!(reason.chars().count(), REASON_CHARS_MAX);
    assert_eq!(log_lines(&proxy, "server is down", 1)[0]["reason"], reason);
    assert!(proxy.command(&["servers"]).stdout.len() < 2_000);
}

#[test]
fn a_server_that_is_down_is_checked_every_interval_down() {
    let port = Port::keep();
    let address = port.address;
    let proxy = Proxy::start(&config(
        &[address],
        "",
        "interval = \"1h\"\ninterval_down = \"20ms\"\nrise = 3",
    ));
    assert_eq!(health(&proxy, address), "down");
    let _server = Server::named_on(port.listen(), "back");
    eventually("the server is up", || health(&proxy, address) == "up");
    assert_eq!(server_reached(proxy.at("l")), "back");
}

#[test]
fn slow_start_begins_with_a_tenth_of_a_servers_share() {
    let (steady, port) = (Server::named("steady"), Port::keep());
    let address = port.address;
    let proxy = Proxy::start(&config(
        &[steady.address, address],
        "balance = \"round-robin\"\nslow_start = \"1h\"",
        "interval = \"20ms\"",
    ));
    assert_eq!(health(&proxy, address), "down");
    let _server = Server::named_on(port.listen(), "back");
    eventually("the server is up", || health(&proxy, address) == "up");
    assert_eq!(
        shares(&proxy, 110),
        BTreeMap::from([("steady".to_owned(), 100), ("back".to_owned(), 10)])
    );
}

#[test]
fn below_the_panic_threshold_all_servers_but_drained_ones_are_used() {
    let servers = [Server::named("a"), Server::named("b"), Server::named("c")];
    let addresses = servers.each_ref().map(|server| server.address);
    let closed_port = Port::keep();
    let checks = format!("interval = \"20ms\"\nport = {}", closed_port.number());
    let proxy = Proxy::start(&config(&addresses, "balance = \"round-robin\"", &checks));
    assert!(addresses.iter().all(|address| health(&proxy, *address) == "down"));
    assert_eq!(server_reached(proxy.at("l")), "", "expected no server to be used");
    let panicking = config(
        &addresses,
        "balance = \"round-robin\"\non_down = \"close\"\nclose_over = \"0s\"",
        &format!("panic_threshold = 50\n{checks}"),
    );
    assert!(proxy.reload(&panicking));
    assert_eq!(shares(&proxy, 30).into_values().collect::<Vec<_>>(), [10, 10, 10]);
    assert_eq!(proxy.answer(&["status"])["pools"][0]["panic"], true);
    proxy.command(&["server", "drain", &format!("p/{}", addresses[0])]);
    assert_eq!(
        shares(&proxy, 30).into_values().collect::<Vec<_>>(),
        [15, 15],
        "expected a drained server to stay unused"
    );
}
