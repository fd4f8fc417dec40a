//! A pool of replicas that falls back to the primary among its servers.

use crate::support::client::Client;
use crate::support::counts::log_count;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::sentinel::{RedisNode, redis_answer};

fn config(servers: &[&RedisNode]) -> String {
    let servers: Vec<_> = servers.iter().map(|server| server.address().to_string()).collect();
    format!(
        "[listeners.read]\nbind = \"127.0.0.1:0\"\npool = \"readers\"\n[pools.readers]\nservers = {servers:?}\n\
         role = \"replica\"\nfallback = \"primary\"\non_down = \"close\"\non_recover = \"close\"\nclose_over = \"0s\"\n\
         [pools.readers.health]\ncheck = \"redis\"\ninterval = \"100ms\"\ntimeout = \"1s\"\nfall = 2\nrise = 1"
    )
}

fn is_on_fallback(proxy: &Proxy) -> bool {
    proxy.metrics().sum("acequia_pool_fallback", &[("pool", "readers")]) == 1.0
}

fn usable(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("acequia_pool_usable", &[("pool", "readers")])
}

/// A session that stays open.
fn session(proxy: &Proxy) -> Client {
    let mut client = Client::connect(proxy.at("read"));
    client.send(b"PING\r\n").read(7);
    client
}

#[test]
fn readers_without_a_replica_use_the_primary_until_a_replica_is_back() {
    let primary = RedisNode::start(&[]);
    let replica = RedisNode::replica_of(&primary, &[]);
    let proxy = Proxy::start(&config(&[&primary, &replica]));
    let role = || redis_answer(proxy.at("read"), "ROLE").unwrap();
    eventually("a replica serves", || {
        proxy.server("readers", &replica.address().to_string())["health"] == "up"
    });
    assert!(role().contains("slave") && !is_on_fallback(&proxy));
    assert_eq!(usable(&proxy), 1.0);
    assert_eq!(proxy.access_line().get("fallback_from"), None);

    replica.freeze();
    eventually("the primary serves", || is_on_fallback(&proxy));
    assert!(role().contains("master"));
    let line = proxy.access_lines(2)[1].clone();
    assert_eq!(
        (&line["pool"], &line["fallback_from"]),
        (&"readers".into(), &"readers".into())
    );
    let primary_name = primary.address().to_string();
    let status = proxy.answer(&["status"]);
    let pool = &status["pools"][0];
    assert_eq!(
        (&pool["fallback"], &pool["served_by"], &pool["primary"]),
        (
            &"primary".into(),
            &primary_name.as_str().into(),
            &primary_name.as_str().into()
        )
    );
    assert_eq!(pool["usable"], false, "the fallback does not count");
    assert_eq!(usable(&proxy), 0.0);
    let shown = proxy.command(&["status"]).stdout;
    let note = format!("readers: no usable server, new sessions go to its primary {primary_name}");
    assert!(shown.contains(&note), "{shown}");
    eventually("it is logged", || {
        log_count(&proxy, "pool has no usable server: its fallback is used") == 1
    });

    // In a pool of replicas the primary counts as down. While it is the fallback, `on_down` does not cut its sessions.
    // `on_recover` cuts them when the replica is back.
    let mut on_primary = session(&proxy);
    replica.thaw();
    on_primary.must_be_reset();
    assert_eq!(proxy.access_lines(3)[2]["ending"], "failed_back");
    assert!(!is_on_fallback(&proxy) && role().contains("slave"));

    replica.freeze();
    eventually("the primary serves again", || is_on_fallback(&proxy));
    primary.freeze();
    eventually("no server is left", || !is_on_fallback(&proxy));
    let _ = Client::connect(proxy.at("read")).try_read_all();
    assert_eq!(proxy.access_lines(5)[4]["ending"], "no_server");
}
