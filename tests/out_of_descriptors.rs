//! Out of descriptors it pauses accepting, says so once, and recovers by itself; whoever was let in is also dialled for.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

mod support;

#[path = "support/hard.rs"]
mod hard;

use std::time::Duration;

use hard::{
    active_becomes, askers, cpu_over, descriptors, is_served, limit_descriptors, limits_of, many_descriptors, said,
    serve_in_turn, take_answered,
};
use support::client::Client;
use support::eventually;
use support::proxy::Proxy;
use support::server::Server;

fn config(server: &Server) -> String {
    format!(
        r#"
        [runtime]
        workers = 2

        [listeners.plain]
        bind = "127.0.0.1:0"
        pool = "echo"

        [pools.echo]
        servers = ["{}"]
        health = {{ interval = "100ms" }}
        "#,
        server.address
    )
}

fn checks(proxy: &Proxy, result: &str) -> f64 {
    proxy
        .metrics()
        .sum("acequia_health_checks_total", &[("result", result)])
}

fn connect_failures(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("acequia_connect_failures_total", &[])
}

#[test]
fn with_64_descriptors_500_clients_are_served_in_turn() {
    const CLIENTS: usize = 500;
    many_descriptors();
    let server = Server::echo();
    let proxy = Proxy::setup(&config(&server))
        .under(&["bash", "-c", r#"ulimit -n 64; exec "$0" "$@""#])
        .start();
    assert_eq!(limits_of(proxy.pid()), (64, 64));
    let mut waiting = askers(proxy.at("plain"), CLIENTS);
    let mut served = Vec::new();
    eventually("some are served", || {
        served.extend(take_answered(&mut waiting));
        said(&proxy, "accepting pauses") > 0 && served.len() > 2
    });
    // The others wait. That costs nothing, and the servers are still looked after.
    let checked = checks(&proxy, "pass");
    let used = cpu_over(&proxy, Duration::from_secs(2));
    assert!(used < Duration::from_millis(300), "{used:?} of CPU while clients wait");
    eventually("checks go on", || checks(&proxy, "pass") > checked + 3.0);
    assert!(descriptors(&proxy) <= 64);
    drop(served);
    let most = serve_in_turn(waiting);
    assert!((1..32).contains(&most), "{most} at once");
    active_becomes(&proxy, 0);
    let lines = proxy.access_lines(CLIENTS);
    assert!(lines.iter().all(|line| line["ending"] == "client_closed"));
    assert_eq!(connect_failures(&proxy), 0.0);
    assert_eq!(checks(&proxy, "fail") + checks(&proxy, "timeout"), 0.0);
    let pauses = said(&proxy, "accepting pauses");
    assert_eq!(pauses, 1, "one crowd, one line");
}

#[test]
fn when_the_limit_falls_under_what_is_open_it_pauses_and_recovers() {
    let server = Server::echo();
    let mut proxy = Proxy::start(&config(&server));
    let mut old: Vec<Client> = (0..3).map(|_| is_served(proxy.at("plain"))).collect();
    let (before, _) = limits_of(proxy.pid());
    limit_descriptors(&proxy, 8);
    let mut waiting = askers(proxy.at("plain"), 20);
    eventually("it says that it pauses", || said(&proxy, "accepting pauses") > 0);
    let used = cpu_over(&proxy, Duration::from_secs(2));
    assert!(
        used < Duration::from_millis(300),
        "{used:?} of CPU while it has no descriptor"
    );
    for client in &mut old {
        assert_eq!(client.send(b"ping").read(4), b"ping", "sessions go on");
    }
    assert!(take_answered(&mut waiting).is_empty());
    let log = proxy.log();
    let pauses: Vec<_> = log
        .iter()
        .filter(|line| line["message"] == "accepting pauses")
        .collect();
    assert_eq!(pauses.len(), 1, "{pauses:#?}");
    assert_eq!(pauses[0]["reason"], "descriptors");
    let warnings = log.iter().filter(|line| line["level"] == "WARN").count();
    assert!(warnings <= 3, "{warnings} warnings in two seconds: {log:#?}");
    limit_descriptors(&proxy, before);
    serve_in_turn(waiting);
    let metrics = proxy.metrics();
    assert!(metrics.sum("acequia_accept_pauses_total", &[("reason", "descriptors")]) > 0.0);
    assert_eq!(metrics.sum("acequia_server_up", &[]), 1.0, "no server is blamed");
    assert_eq!(connect_failures(&proxy), 0.0);
    eventually("it says that it goes on", || {
        is_served(proxy.at("plain"));
        said(&proxy, "accepting again") > 0
    });
    assert!(proxy.is_running());
}
