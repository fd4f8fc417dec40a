//! Configurations that several tests use.

use std::net::SocketAddr;

/// A listener `tls` that reads names, with a pool for the rest, one `plain` that does not, and one server; with more
/// keys for the listeners.
pub fn two_listeners(server: SocketAddr, keys: &str) -> String {
    format!(
        r#"
        [listeners.tls]
        bind = "127.0.0.1:0"
        pool = "all"
        {keys}
        [[listeners.tls.routes]]
        sni = "good.example"
        pool = "all"

        [listeners.plain]
        bind = "127.0.0.1:0"
        pool = "all"
        {keys}

        [pools.all]
        servers = ["{server}"]
        health = {{ check = "off" }}
        "#
    )
}
