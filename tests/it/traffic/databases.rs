//! Real databases behind one address: their own clients see no errors, and the servers share the sessions evenly.

use std::process::Command;
use std::thread::{scope, spawn};

use crate::support::database::{Postgres, Redis, pgbench, psql};
use crate::support::process::{finished, must};
use crate::support::proxy::Proxy;

fn config(servers: &[std::net::SocketAddr; 2]) -> String {
    let [a, b] = servers;
    // With least-conn, the slower of the two servers would get fewer sessions.
    format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\npool = \"db\"\n\
         [pools.db]\nbalance = \"round-robin\"\nservers = [\"{a}\", \"{b}\"]"
    )
}

/// Asserts that each server had at least 40 % of the sessions and that all ended cleanly.
fn assert_even_and_clean(proxy: &Proxy, sessions_min: f64) {
    crate::support::eventually("all sessions are over", || {
        let metrics = proxy.metrics();
        metrics.sum("acequia_connections_total", &[]) == metrics.sum("acequia_sessions_total", &[])
    });
    let metrics = proxy.metrics();
    let all = metrics.sum("acequia_sessions_total", &[]);
    assert!(all >= sessions_min, "only {all} sessions");
    let servers = metrics.series("acequia_server_up", &[]);
    assert_eq!(servers.len(), 2);
    for server in servers {
        let share = metrics.sum("acequia_sessions_total", &[("server", &server.labels["server"])]);
        assert!(share >= 0.4 * all, "{share} of {all}: {server:?}");
    }
    let ended_with = |ending| metrics.sum("acequia_sessions_total", &[("ending", ending)]);
    assert_eq!(ended_with("client_closed") + ended_with("server_closed"), all);
}

#[test]
fn pgbench_sees_no_error_and_postgresql_servers_share_the_sessions() {
    let servers = [(); 2]
        .map(|()| spawn(Postgres::start))
        .map(|starting| starting.join().unwrap());
    let addresses = servers.each_ref().map(Postgres::address);
    scope(|all| {
        let _ = addresses.map(|address| all.spawn(move || must(&mut pgbench(address, &["-i", "-q"]))));
    });
    let proxy = Proxy::start(&config(&addresses));
    let address = proxy.at("db");
    assert_eq!(must(&mut psql(address, "SELECT 6 * 7")), "42\n");
    // 16 sessions of 25 transactions, then 320 sessions of one transaction.
    let long_sessions = must(&mut pgbench(address, &["-n", "-c", "16", "-j", "2", "-t", "25"]));
    let short_sessions = must(&mut pgbench(address, &["-n", "-C", "-c", "16", "-j", "2", "-t", "20"]));
    for (output, transactions) in [(&long_sessions, "400/400"), (&short_sessions, "320/320")] {
        assert!(
            output.contains(&format!("actually processed: {transactions}\n")),
            "{output}"
        );
        assert!(output.contains("failed transactions: 0 "), "{output}");
    }
    assert_even_and_clean(&proxy, 336.0);
}

#[test]
fn redis_benchmark_sees_no_error_and_redis_servers_share_the_sessions() {
    let servers = [(); 2].map(|()| Redis::start());
    let proxy = Proxy::start(&config(&servers.each_ref().map(Redis::address)));
    let mut benchmark = Command::new("redis-benchmark");
    benchmark.args([
        "-p",
        &proxy.at("db").port().to_string(),
        "-c",
        "50",
        "-n",
        "5000",
        "-q",
        "-t",
        "ping,set,get",
    ]);
    let done = finished(&mut benchmark);
    assert!(done.code == Some(0) && done.stderr.is_empty(), "{done:#?}");
    assert_eq!(done.stdout.matches("requests per second").count(), 4, "{done:#?}"); // two kinds of ping
    assert_even_and_clean(&proxy, 200.0); // 50 clients in each of the four tests
}
