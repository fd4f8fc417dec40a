//! A server in several pools is checked once, if the pools check it in the same way.

use std::net::SocketAddr;

use crate::support::configs::{listener, pool};
use crate::support::database::Redis;
use crate::support::eventually;
use crate::support::proxy::Proxy;

/// The pools `writers` and `readers` with the same server. `readers`: more keys of the pool `readers`.
fn config(server: SocketAddr, readers: &str) -> String {
    let check = "health.check = \"redis\"\nhealth.interval = \"50ms\"\nhealth.timeout = \"5s\"";
    [
        listener("write", "writers", ""),
        listener("read", "readers", ""),
        pool("writers", &[server], &format!("role = \"primary\"\n{check}")),
        pool("readers", &[server], &format!("{check}\n{readers}")),
    ]
    .concat()
}

fn checks(proxy: &Proxy, pool: &str) -> f64 {
    proxy.metrics().sum("acequia_health_checks_total", &[("pool", pool)])
}

/// Waits until each of these pools has had ten more checks. Returns the number of connections that the server accepted
/// in this time, divided by the number of checks of the last pool.
fn connections_per_check(proxy: &Proxy, server: &Redis, pools: &[&str]) -> f64 {
    let connections = || server.info("total_connections_received") as f64; // each call is a connection, too
    let last = pools.last().unwrap();
    let (checks_before, connections_before) = (checks(proxy, last), connections());
    let before: Vec<_> = pools.iter().map(|pool| checks(proxy, pool)).collect();
    eventually("all pools have ten more checks", || {
        pools
            .iter()
            .zip(&before)
            .all(|(pool, before)| checks(proxy, pool) >= before + 10.0)
    });
    (connections() - connections_before) / (checks(proxy, last) - checks_before)
}

fn health(proxy: &Proxy, server: &Redis, pool: &str) -> serde_json::Value {
    proxy.server(pool, &server.address().to_string())["health"].clone()
}

#[test]
fn pools_share_only_identical_checks_and_judge_the_result_themselves() {
    let server = Redis::start();
    let readers = "role = \"replica\"\nmax_lag = \"5s\"\nhealth.rise = 3\nhealth.fall = 1";
    let proxy = Proxy::start(&config(server.address(), readers));
    let both = ["writers", "readers"];
    let healths = || both.map(|pool| health(&proxy, &server, pool));
    assert_eq!(healths(), ["up", "wrong role"], "the server is a primary");
    let ratio = connections_per_check(&proxy, &server, &both);
    assert!(ratio < 1.5, "{ratio} connections for a check");

    // A reload that changes how one pool judges leaves the other one alone, and both still share the check.
    assert!(proxy.reload(&config(server.address(), "health.rise = 2")));
    eventually("readers use a server of any role", || healths() == ["up", "up"]);
    let ratio = connections_per_check(&proxy, &server, &both);
    assert!(ratio < 1.5, "{ratio} connections for a check after a reload");

    // The check goes on for the pool in which the server is not disabled.
    let name = format!("writers/{}", server.address());
    assert_eq!(proxy.command(&["server", "disable", &name]).code, Some(0));
    let before = checks(&proxy, "writers");
    connections_per_check(&proxy, &server, &["readers"]); // waits for ten checks
    assert_eq!(checks(&proxy, "writers"), before);
    assert_eq!(proxy.command(&["server", "enable", &name]).code, Some(0));
    eventually("it is up in both", || healths() == ["up", "up"]);

    assert!(proxy.reload(&config(server.address(), "health.concurrency = 3")));
    let ratio = connections_per_check(&proxy, &server, &both);
    assert!(
        ratio < 1.5,
        "{ratio} connections for a check with another `concurrency`"
    );

    // Pools with different `interval_down` do not share a check.
    assert!(proxy.reload(&config(server.address(), "health.interval_down = \"40ms\"")));
    let ratio = connections_per_check(&proxy, &server, &both);
    assert!(ratio > 1.5, "{ratio} connections for a check with different intervals");
}
