//! Each balancing policy distributes sessions as documented.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::client::{Client, server_reached};
use crate::support::process::must;
use crate::support::proxy::{Proxy, acequia};
use crate::support::server::Server;

/// Three servers that send their names, and a configuration with this policy and these weights.
fn pool(balance: &str, weights: [u16; 3]) -> ([Server; 3], String) {
    let names = ["s1", "s2", "s3"];
    let servers = names.map(Server::named);
    let entry = |((server, name), weight): ((&Server, _), _)| {
        format!(
            "{{ address = \"{}\", name = \"{name}\", weight = {weight} }}",
            server.address
        )
    };
    let entries: Vec<_> = servers.iter().zip(names).zip(weights).map(entry).collect();
    let config = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nbalance = \"{balance}\"\nservers = [{}]",
        entries.join(", ")
    );
    (servers, config)
}

/// Open sessions, started one after the other, each with the name of its server.
fn held(proxy: &Proxy, count: usize) -> Vec<(String, Client)> {
    let begin = |_| {
        let mut client = Client::connect(proxy.at("l"));
        (client.read_some(), client)
    };
    (0..count).map(begin).collect()
}

/// The number of sessions of each server.
fn shares<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<(&'a str, usize)> {
    let mut counts = BTreeMap::new();
    names
        .into_iter()
        .for_each(|name| *counts.entry(name.as_str()).or_default() += 1);
    counts.into_iter().collect()
}

fn names<T>(sessions: &[(String, T)]) -> impl Iterator<Item = &String> {
    sessions.iter().map(|(name, _)| name)
}

#[test]
fn least_conn_keeps_session_counts_even() {
    let (_servers, config) = pool("least-conn", [1, 1, 1]);
    let proxy = Proxy::start(&config);
    let mut sessions = held(&proxy, 30);
    assert_eq!(shares(names(&sessions)), [("s1", 10), ("s2", 10), ("s3", 10)]);
    // The server that lost its sessions gets the next ones.
    sessions.retain(|(name, _)| name != "s2");
    crate::support::eventually("its sessions are over", || {
        proxy.metrics().sum("acequia_sessions_active", &[]) == 20.0
    });
    assert_eq!(shares(names(&held(&proxy, 10))), [("s2", 10)]);
}

#[test]
fn least_conn_follows_weights_and_weight_0_gets_nothing() {
    let (servers, config) = pool("least-conn", [1, 3, 0]);
    let proxy = Proxy::start(&config);
    assert_eq!(shares(names(&held(&proxy, 40))), [("s1", 10), ("s2", 30)]);
    assert_eq!(servers[2].sessions(), 0);
}

#[test]
fn round_robin_gives_each_server_one_session_per_round() {
    let (_servers, config) = pool("round-robin", [1, 1, 1]);
    let proxy = Proxy::start(&config);
    let turns: Vec<_> = (0..30).map(|_| server_reached(proxy.at("l"))).collect();
    for round in turns.windows(3) {
        assert_eq!(shares(round), [("s1", 1), ("s2", 1), ("s3", 1)], "{turns:?}");
    }
}

#[test]
fn round_robin_follows_weights_in_every_round() {
    let (_servers, config) = pool("round-robin", [1, 3, 0]);
    let proxy = Proxy::start(&config);
    let turns: Vec<_> = (0..24).map(|_| server_reached(proxy.at("l"))).collect();
    for round in turns.windows(4) {
        assert_eq!(shares(round), [("s1", 1), ("s2", 3)], "{turns:?}");
    }
}

#[test]
fn random_two_of_two_servers_is_even_and_weight_0_gets_nothing() {
    let (_servers, config) = pool("random-two", [1, 1, 0]);
    let proxy = Proxy::start(&config);
    let sessions = held(&proxy, 80);
    let shares = shares(names(&sessions));
    // With two servers both are always compared: their loads never differ by more than one.
    assert_eq!(shares, [("s1", 40), ("s2", 40)]);
}

#[test]
fn random_two_of_three_servers_is_about_even() {
    let (_servers, config) = pool("random-two", [1, 1, 1]);
    let proxy = Proxy::start(&config);
    let sessions = held(&proxy, 90);
    let shares = shares(names(&sessions));
    assert!(
        shares.len() == 3 && shares.iter().all(|(_, share)| (20..=40).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn source_hash_keeps_a_client_on_the_server_that_the_route_command_shows() {
    let (_servers, config) = pool("source-hash", [1, 1, 1]);
    let proxy = Proxy::start(&config);
    let file = proxy.directory().join("acequia.toml");
    let mut used = BTreeSet::new();
    for client in (1..=24).map(|last| format!("127.0.0.{last}")) {
        let order = must(acequia(&["route", "--listener", "l", "--from", &client, "-c"]).arg(&file));
        let first = order
            .lines()
            .find_map(|line| line.trim_start().strip_prefix("1. "))
            .expect("an order");
        let names: Vec<_> = (0..3)
            .map(|_| Client::connect_from(&client, proxy.at("l")).read_some())
            .collect();
        assert!(
            names.iter().all(|name| first.starts_with(&format!("{name} at "))),
            "{client}: {names:?}, {order}"
        );
        used.insert(names[0].clone());
    }
    assert_eq!(used.len(), 3, "expected 24 clients to use 3 servers, they use {used:?}");
}
