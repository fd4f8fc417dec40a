//! Servers that a source lists or an operator adds come and go, and no session is lost by it. Also routes that
//! containers announce, and a configuration that a fleet shares.

mod added;
mod announced;
mod dns;
mod docker;
mod docker_api;
mod etcd;
mod file;
mod fleet;
mod http;
mod kubernetes;
mod large;

use serde_json::Value;

use crate::support::api;
use crate::support::client::server_reached;
use crate::support::eventually;
use crate::support::proxy::Proxy;

/// The first pool, as `GET /api/v1/state` shows it.
fn pool(proxy: &Proxy) -> Value {
    let (_, state) = api::unix(proxy, "GET", "/api/v1/state", "");
    state["pools"][0].clone()
}

/// The state of the first pool's source of servers.
fn discovery(proxy: &Proxy) -> Value {
    pool(proxy)["discovery"].clone()
}

fn wait_for_error(proxy: &Proxy, error: &str) {
    eventually(error, || {
        discovery(proxy)["error"].as_str().unwrap_or_default().contains(error)
    });
}

/// Whether the listener `l` sends four clients in a row to this server.
fn reaches_only(proxy: &Proxy, server: &str) -> bool {
    (0..4).all(|_| server_reached(proxy.at("l")) == server)
}

/// The metric of pool `p` that is 1 if the latest answer of its source of servers was usable, and 0 otherwise.
fn discovery_up(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("acequia_discovery_up", &[("pool", "p")])
}
