//! Parts of configurations, in TOML. Every listener is on a port of 127.0.0.1 that the system chooses.

use std::net::SocketAddr;

/// A listener with this pool; `keys` are further lines.
pub fn listener(name: &str, pool: &str, keys: &str) -> String {
    format!("[listeners.{name}]\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n{keys}\n")
}

/// A listener that routes by server name. A route is a pattern and its target: `pool = "a"` or `refuse = true`. `keys`
/// are further lines of the listener.
pub fn tls_listener(name: &str, keys: &str, routes: &[(&str, &str)]) -> String {
    let route = |(sni, target): &(&str, &str)| format!("[[listeners.{name}.routes]]\nsni = \"{sni}\"\n{target}\n");
    let routes: String = routes.iter().map(route).collect();
    format!("[listeners.{name}]\nbind = \"127.0.0.1:0\"\n{keys}\n{routes}")
}

/// A pool of these servers; `keys` are further lines.
pub fn pool(name: &str, servers: &[SocketAddr], keys: &str) -> String {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    format!("[pools.{name}]\nservers = {servers:?}\n{keys}\n")
}

/// A listener `l` with the pool `p` of these servers; `keys` are further lines of the pool.
pub fn one_pool(servers: &[SocketAddr], keys: &str) -> String {
    listener("l", "p", "") + &pool("p", servers, keys)
}

/// A listener `tls` that routes by server name and a listener `plain` that does not. Both use the pool `all`, which has
/// this server and no health checks. `keys` are further lines of both listeners.
pub fn two_listeners(server: SocketAddr, keys: &str) -> String {
    let keys_of_tls = format!("pool = \"all\"\n{keys}");
    [
        tls_listener("tls", &keys_of_tls, &[("good.example", "pool = \"all\"")]),
        listener("plain", "all", keys),
        pool("all", &[server], "health = { check = \"off\" }"),
    ]
    .concat()
}
