//! Which series there are, how long they last, and what durations and bytes they count.

use std::collections::BTreeSet;

use super::mixed_load::{Setting, metrics_after_sessions};
use crate::support::client::{Client, ask};
use crate::support::configs::one_pool;
use crate::support::hello::Hello;
use crate::support::metrics::{Metrics, Sample};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, wait_for};

#[test]
fn every_ending_has_a_series_for_a_pool_and_for_no_pool_even_without_sessions() {
    let server = Server::echo();
    let proxy = Proxy::start(&one_pool(&[server.address], ""));
    let endings = |pool: &str| -> Vec<(String, f64)> {
        let metrics = proxy.metrics();
        let series = metrics.series("acequia_pool_sessions_total", &[("pool", pool)]);
        series
            .iter()
            .map(|sample| (sample.labels["ending"].clone(), sample.value))
            .collect()
    };
    let before = endings("p");
    assert!(
        before.len() > 20 && before.iter().all(|(_, value)| *value == 0.0),
        "{before:?}"
    );
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    eventually("the session is counted", || {
        endings("p")
            .iter()
            .any(|(ending, value)| ending == "client_closed" && *value == 1.0)
    });
    assert_eq!(endings("p").len(), before.len());
    assert_eq!(endings("").len(), before.len(), "for sessions without a pool");
}

#[test]
fn removed_listeners_pools_and_servers_keep_their_counters_and_lose_their_gauges() {
    let servers = [Server::echo(), Server::echo()];
    let part = |name: &str, server: &Server| {
        let address = server.address;
        format!(
            "[listeners.{name}]\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n\
             [pools.{name}]\nservers = [{{ address = \"{address}\", name = \"{name}\" }}]\nhealth = {{ check = \"off\" }}\n"
        )
    };
    let [kept, removed] = [part("kept", &servers[0]), part("removed", &servers[1])];
    let proxy = Proxy::start(&format!("{kept}{removed}"));
    let samples_of_removed = |metrics: &Metrics, kind: &str| -> Vec<Sample> {
        let families = metrics.families.values().filter(|family| family.kind == kind);
        let samples = families.flat_map(|family| family.samples.iter().cloned());
        samples
            .filter(|sample| sample.labels.values().any(|value| value == "removed"))
            .collect()
    };
    let comparable = |sample: &Sample| (sample.name.clone(), sample.labels.clone(), sample.value.to_string());
    assert_eq!(ask(proxy.at("removed"), b"ping"), b"ping");
    assert_eq!(proxy.access_lines(1)[0]["pool"], "removed");
    // The counts are kept although no scrape has shown them yet.
    proxy.rewrite(&kept);
    assert_eq!(proxy.command(&["reload"]).code, Some(0));
    // A listener has its gauge until the workers have closed its sockets.
    let first = wait_for("the gauges are gone", || {
        Some(proxy.metrics()).filter(|metrics| samples_of_removed(metrics, "gauge").is_empty())
    });
    let (server, closed) = (("server", "removed"), ("ending", "client_closed"));
    assert_eq!(first.sum("acequia_sessions_total", &[server, closed]), 1.0);
    assert_eq!(first.sum("acequia_bytes_total", &[server, ("direction", "up")]), 4.0);
    assert_eq!(
        first.sum("acequia_pool_sessions_total", &[("pool", "removed"), closed]),
        1.0
    );
    assert_eq!(
        first.sum("acequia_session_duration_seconds_count", &[("pool", "removed")]),
        1.0
    );
    assert_eq!(first.sum("acequia_connections_total", &[("listener", "removed")]), 1.0);
    for kind in ["counter", "histogram"] {
        let counted = |metrics: &Metrics| -> BTreeSet<_> {
            let samples = samples_of_removed(metrics, kind);
            samples.iter().map(comparable).collect()
        };
        assert_eq!(
            counted(&proxy.metrics()),
            counted(&first),
            "expected a second scrape to show the same"
        );
    }
}

#[test]
fn the_session_durations_of_a_pool_continue_when_its_servers_change() {
    let servers = [Server::echo(), Server::echo()];
    let config = |server: &Server| one_pool(&[server.address], "");
    let proxy = Proxy::start(&config(&servers[0]));
    for (round, server) in servers.iter().enumerate() {
        if round > 0 {
            assert!(proxy.reload(&config(server)));
        }
        assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
        eventually("the session is counted", || {
            let counted = proxy
                .metrics()
                .sum("acequia_session_duration_seconds_count", &[("pool", "p")]);
            counted == round as f64 + 1.0
        });
    }
}

#[test]
fn histogram_buckets_span_the_documented_range() {
    let setting = Setting::start();
    let proxy = &setting.proxy;
    ask(proxy.at("tls"), &Hello::named("good.example").bytes());
    let metrics = metrics_after_sessions(proxy, 1);
    let bounds = |name: &str| -> Vec<f64> {
        let series = metrics.series(&format!("acequia_{name}_duration_seconds_bucket"), &[]);
        let distinct: BTreeSet<_> = series.iter().map(|sample| sample.labels["le"].as_str()).collect();
        let mut bounds: Vec<f64> = distinct.into_iter().map(|bound| bound.parse().unwrap()).collect();
        bounds.sort_by(f64::total_cmp);
        bounds
    };
    for (name, first, last) in [
        ("hello", 0.0005, 10.0),
        ("connect", 0.0005, 10.0),
        ("session", 0.01, 86400.0),
    ] {
        let bounds = bounds(name);
        assert!(bounds.len() > 8, "{bounds:?}");
        // The bound after `last` is +Inf.
        assert_eq!((bounds[0], bounds[bounds.len() - 2]), (first, last), "{name}");
    }
}

#[test]
fn bytes_of_an_open_session_are_counted_while_it_lasts() {
    let server = Server::echo();
    let proxy = Proxy::start(&one_pool(&[server.address], ""));
    let mut client = Client::connect(proxy.at("l"));
    for sent_so_far in [1000, 2000, 3000] {
        client.send(&[7; 1000]).read(1000);
        eventually("the session's bytes are counted", || {
            let metrics = proxy.metrics();
            let bytes = |direction| metrics.sum("acequia_bytes_total", &[("direction", direction), ("listener", "l")]);
            bytes("up") == f64::from(sent_so_far) && bytes("down") == f64::from(sent_so_far)
        });
    }
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_sessions_active", &[("listener", "l")]), 1.0);
    assert_eq!(metrics.sum("acequia_server_sessions_active", &[("pool", "p")]), 1.0);
    assert_eq!(metrics.sum("acequia_sessions_total", &[]), 0.0);
}
