//! A reload reports changed settings, and its CPU time grows linearly with the configuration.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{scope, sleep};
use std::time::Duration;

use crate::support::client::server_reached;
use crate::support::proxy::{Proxy, http_get};
use crate::support::server::{Server, list};
use crate::support::stop::StopOnDrop;
use crate::support::usage::cpu_time;
use crate::support::wait_for;
use tokio::time::Instant;

/// One listener and its pool, each with these further lines.
fn config(server: &Server, listener: &str, pool: &str) -> String {
    let servers = list(&[server]);
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"orders\"\n{listener}\n\
         [pools.orders]\nservers = [{servers}]\n{pool}"
    )
}

#[test]
fn a_changed_default_of_listed_servers_is_reported_as_a_key_of_the_pool() {
    let (server, directory) = (Server::echo(), tempfile::tempdir().unwrap());
    let list = directory.path().join("servers.json");
    std::fs::write(&list, format!("[{{\"address\": \"{}\"}}]", server.address)).unwrap();
    let config = |sessions: u32| {
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"orders\"\n\
             [pools.orders]\ndiscover = {{ file = {list:?} }}\nmax_sessions = {sessions}"
        )
    };
    let proxy = Proxy::start(&config(5));
    proxy.rewrite(&config(6));
    let changed = &proxy.answer(&["reload"])["pools"]["changed"];
    assert_eq!(
        *changed,
        serde_json::json!([{ "name": "orders", "keys": ["max_sessions"] }])
    );
}

#[test]
fn the_command_and_the_log_report_what_changed() {
    let server = Server::named("it");
    let proxy = Proxy::start(&config(
        &server,
        "",
        "balance = \"least-conn\"\nhealth = { interval_down = \"9s\" }",
    ));
    proxy.rewrite(&config(
        &server,
        "idle_timeout = \"1h\"",
        "balance = \"random-two\"\nhealth = { interval = \"1s\", interval_down = \"9s\" }",
    ));
    let output = proxy.command(&["reload"]).stdout;
    for line in [
        "pools: 0 added, 0 removed, 1 kept",
        "1 listener changed: l (idle_timeout)",
        "1 pool changed: orders (balance, health.interval)",
    ] {
        assert!(output.lines().any(|printed| printed == line), "{line}: {output}");
    }
    let logged = wait_for("the changes are logged", || {
        proxy.log().into_iter().find(|line| line["message"] == "reloaded")
    });
    assert_eq!(
        logged["changed"],
        "1 listener changed: l (idle_timeout); 1 pool changed: orders (balance, health.interval)"
    );
    assert_eq!(server_reached(proxy.at("l")), "it");
    let again = proxy.answer(&["reload"]);
    for what in ["listeners", "pools", "servers"] {
        assert_eq!(again[what]["changed"], serde_json::json!([]), "expected no change");
    }
    proxy.rewrite(&config(
        &server,
        "idle_timeout = \"1h\"",
        "balance = \"random-two\"\nretries = 1\nhealth = { interval = \"1s\", interval_down = \"9s\" }\n\
         [defaults]\nhalf_close_timeout = \"1m\"\n[runtime]\ndrain_timeout = \"5s\"",
    ));
    let reloaded = proxy.answer(&["reload"]);
    assert_eq!(
        (
            &reloaded["listeners"]["changed"],
            &reloaded["pools"]["changed"],
            &reloaded["settings"]
        ),
        (
            &serde_json::json!([{ "name": "l", "keys": ["half_close_timeout"] }]),
            &serde_json::json!([{ "name": "orders", "keys": ["retries"] }]),
            &serde_json::json!(["runtime.drain_timeout"])
        )
    );
}

/// A configuration with this many pools, a route to each, and one more pool of this name.
fn config_of_pools(pools: usize, one_more: &str) -> String {
    let mut text = String::from("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p0\"\n");
    for number in 0..pools {
        text += &format!("[[listeners.l.routes]]\nsni = \"h{number}.test\"\npool = \"p{number}\"\n");
    }
    let names = (0..pools)
        .map(|number| format!("p{number}"))
        .chain([one_more.to_owned()]);
    for name in names {
        text += &format!("[pools.{name}]\nservers = [\"127.0.0.1:9\"]\nhealth.check = \"off\"\n");
    }
    text
}

struct ReloadCost {
    cpu: Duration,
    took: Duration,
    /// The longest answer time of `/live` during the reload.
    longest_answer: Duration,
}

/// Reloads a configuration with this many pools, and one more pool that the reload replaces.
fn reload_of(pools: usize) -> ReloadCost {
    let proxy = Proxy::start(&config_of_pools(pools, "before"));
    proxy.rewrite(&config_of_pools(pools, "after"));
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        let stop = StopOnDrop(&is_over);
        let asking = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !is_over.load(SeqCst) {
                let asked = Instant::now();
                assert!(http_get(proxy.admin(), "/live").unwrap().0.contains(" 200 "));
                longest = longest.max(asked.elapsed());
                sleep(Duration::from_millis(2));
            }
            longest
        });
        let (began, cpu_before) = (Instant::now(), cpu_time(&proxy));
        let reloaded = proxy.answer(&["reload"]);
        let (took, cpu) = (began.elapsed(), cpu_time(&proxy) - cpu_before);
        drop(stop);
        assert_eq!(
            (&reloaded["pools"]["added"], &reloaded["pools"]["removed"]),
            (&serde_json::json!(["after"]), &serde_json::json!(["before"]))
        );
        ReloadCost {
            cpu,
            took,
            longest_answer: asking.join().unwrap(),
        }
    })
}

#[test]
fn reload_time_is_linear_in_the_pools_and_no_request_is_stalled() {
    let cpu_of_few = reload_of(1_000).cpu;
    let ReloadCost {
        cpu: cpu_of_many,
        took,
        longest_answer,
    } = reload_of(10_000);
    // Ten times the pools: linear growth gives a factor of 10, quadratic growth one of 100.
    assert!(
        cpu_of_many < 30 * cpu_of_few.max(Duration::from_millis(50)),
        "{cpu_of_many:?} of CPU time, and {cpu_of_few:?} for a tenth of the pools"
    );
    // A request that had to wait for the whole reload would take about as long as the reload.
    assert!(
        longest_answer < took / 2 || longest_answer < Duration::from_millis(500),
        "/live took {longest_answer:?} during a reload of {took:?}"
    );
}
