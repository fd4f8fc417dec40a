//! With `failback = "manual"`, a server that went down is used again only when an operator says so.

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use crate::support::client::server_reached;
use crate::support::eventually;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

fn config(failback: &str, servers: &[SocketAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [{}]\nfailback = \"{failback}\"\n\
         [pools.p.health]\ninterval = \"50ms\"\nfall = 1\nrise = 1",
        servers.join(", ")
    )
}

/// Stops the server, starts another at its address, and waits until the checks pass.
fn restart(proxy: &Proxy, server: Server) -> Server {
    let address = server.address;
    drop(server);
    let state = || proxy.server("p", &address.to_string());
    eventually("the server awaits failback", || state()["use"] == "awaiting failback");
    let restarted = Server::named_on(TcpListener::bind(address).unwrap(), "back");
    eventually("the server's checks pass", || state()["health"] == "up");
    restarted
}

#[test]
fn a_failed_server_awaits_failback_until_it_is_enabled_or_failback_is_auto() {
    let (port, other) = (Port::keep(), Server::named("other"));
    let servers = [port.address, other.address];
    let label = port.address.to_string();
    let proxy = Proxy::start(&config("manual", &servers));
    let state = || proxy.server("p", &label);
    assert_eq!(
        state()["use"],
        "enabled",
        "a server that was never up does not await failback"
    );
    let back = Server::named_on(port.listen(), "back");
    eventually("the server is up", || state()["health"] == "up");
    let back = restart(&proxy, back);
    for _ in 0..4 {
        assert_eq!(server_reached(proxy.at("l")), "other");
    }
    proxy.answer(&["server", "enable", &format!("p/{label}")]);
    assert_eq!(state()["use"], "enabled");
    eventually("the server is used", || server_reached(proxy.at("l")) == "back");
    let _back = restart(&proxy, back);
    assert!(proxy.reload(&config("auto", &servers)));
    assert_eq!(state()["use"], "enabled", "expected `auto` to need no operator");
}

#[test]
fn a_server_that_an_operator_drained_does_not_await_failback() {
    let (port, other) = (Port::keep(), Server::named("other"));
    let address = port.address;
    let label = address.to_string();
    let proxy = Proxy::start(&config("manual", &[address, other.address]));
    let state = || proxy.server("p", &label);
    let server = Server::named_on(port.listen(), "first");
    eventually("the server is up", || state()["health"] == "up");
    proxy.answer(&["server", "drain", &format!("p/{label}")]);
    let drained = state();
    drop(server);
    eventually("the server is down", || state()["health"] == "down");
    let _server = Server::named_on(TcpListener::bind(address).unwrap(), "second");
    eventually("the server's checks pass", || state()["health"] == "up");
    for key in ["use", "set_by", "set_at"] {
        assert_eq!(state()[key], drained[key], "{key}");
    }
    let says_awaits_failback = |line: &Value| line["message"].as_str().unwrap().contains("awaits failback");
    assert!(!proxy.stop().log.iter().any(says_awaits_failback));
}
