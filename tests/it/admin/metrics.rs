//! `/metrics`: the documented names, counters that add up, gauges that return to 0. Also `/live` and `/ready`.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::Command;

use super::mixed_load::{Setting, metrics_after_sessions, mixed_load};
use crate::support::client::Client;
use crate::support::configs::one_pool;
use crate::support::eventually;
use crate::support::process::finished;
use crate::support::proxy::{Proxy, http_get};
use crate::support::server::{Server, hanging};
use rustix::process::Signal;

/// Name, type and labels of every metric of a [`Setting`] whose name begins with `acequia_`. docs/metrics.md has more.
const TABLE: &[(&str, &str, &[&str])] = &[
    ("acequia_build_info", "gauge", &["version"]),
    ("acequia_connections_total", "counter", &["listener"]),
    (
        "acequia_sessions_total",
        "counter",
        &["listener", "pool", "server", "ending"],
    ),
    ("acequia_pool_sessions_total", "counter", &["pool", "ending"]),
    ("acequia_route_sessions_total", "counter", &["listener", "route"]),
    ("acequia_worker_busy_seconds_total", "counter", &["worker"]),
    ("acequia_sessions_active", "gauge", &["listener"]),
    ("acequia_server_sessions_active", "gauge", &["pool", "server"]),
    (
        "acequia_bytes_total",
        "counter",
        &["listener", "pool", "server", "direction"],
    ),
    ("acequia_hello_duration_seconds", "histogram", &["listener"]),
    ("acequia_connect_duration_seconds", "histogram", &["pool", "server"]),
    (
        "acequia_connect_failures_total",
        "counter",
        &["pool", "server", "reason"],
    ),
    ("acequia_session_duration_seconds", "histogram", &["pool"]),
    ("acequia_pool_queue", "gauge", &["pool"]),
    ("acequia_queue_wait_seconds", "histogram", &["pool"]),
    ("acequia_server_max_sessions", "gauge", &["pool", "server"]),
    ("acequia_server_up", "gauge", &["pool", "server"]),
    ("acequia_server_healthy", "gauge", &["pool", "server"]),
    ("acequia_server_use", "gauge", &["pool", "server", "state"]),
    ("acequia_server_ejected", "gauge", &["pool", "server"]),
    ("acequia_server_usable", "gauge", &["pool", "server"]),
    ("acequia_server_weight", "gauge", &["pool", "server"]),
    ("acequia_pool_servers", "gauge", &["pool", "state"]),
    ("acequia_pool_usable", "gauge", &["pool"]),
    ("acequia_max_connections", "gauge", &["listener"]),
    ("acequia_process_max_connections", "gauge", &[]),
    (
        "acequia_health_check_duration_seconds",
        "histogram",
        &["pool", "server"],
    ),
    ("acequia_health_checks_total", "counter", &["pool", "server", "result"]),
    ("acequia_health_transitions_total", "counter", &["pool", "server", "to"]),
    ("acequia_accept_pauses_total", "counter", &["listener", "reason"]),
    ("acequia_guard_refusals_total", "counter", &["guard", "reason"]),
    ("acequia_guard_reports_total", "counter", &["guard", "reason"]),
    ("acequia_guard_evictions_total", "counter", &["guard"]),
    ("acequia_guard_sessions", "gauge", &["guard"]),
    ("acequia_guard_sources", "gauge", &["guard"]),
    ("acequia_log_lines_dropped_total", "counter", &[]),
    ("acequia_certificate_reloads_total", "counter", &["result"]),
    ("acequia_config_reloads_total", "counter", &["result"]),
    ("acequia_config_last_reload_timestamp_seconds", "gauge", &[]),
];

#[test]
fn after_failures_in_every_phase_session_gauges_return_to_0_and_counters_add_up() {
    let setting = Setting::start();
    let proxy = &setting.proxy;
    let (sessions, bytes_up, bytes_down) = mixed_load(proxy);
    let metrics = metrics_after_sessions(proxy, sessions);
    for gauge in ["acequia_sessions_active", "acequia_server_sessions_active"] {
        assert!(!metrics.series(gauge, &[]).is_empty());
        assert!(
            metrics.series(gauge, &[]).iter().all(|sample| sample.value == 0.0),
            "{metrics:#?}"
        );
    }
    for listener in ["good", "resets", "dead", "down", "hanging", "narrow", "tls"] {
        let sum = |name| metrics.sum(name, &[("listener", listener)]);
        assert_eq!(
            sum("acequia_connections_total"),
            sum("acequia_sessions_total"),
            "{listener}"
        );
    }
    // `mixed_load` runs 8 rounds. In round 1, a ClientHello and a connect time out; in the other 7 rounds the client
    // resets these two sessions. After the rounds, one session has an idle timeout.
    let sessions_of = |labels: &[_]| metrics.sum("acequia_sessions_total", labels);
    for (labels, count) in [
        (
            &[
                ("ending", "no_route"),
                ("listener", "tls"),
                ("pool", ""),
                ("server", ""),
            ][..],
            16.0,
        ),
        (&[("ending", "refused")], 8.0),
        (&[("ending", "hello_too_long")], 8.0),
        (&[("ending", "hello_invalid")], 8.0),
        (&[("ending", "hello_timeout")], 1.0),
        (&[("ending", "client_left_early")], 8.0),
        (&[("ending", "client_reset"), ("listener", "tls")], 7.0),
        (&[("ending", "client_reset"), ("listener", "hanging")], 7.0),
        (
            &[("ending", "client_reset"), ("listener", "good"), ("pool", "good")],
            8.0,
        ),
        (&[("ending", "client_closed"), ("pool", "good")], 24.0),
        (&[("ending", "idle_timeout")], 1.0),
        (&[("ending", "server_reset"), ("pool", "resets")], 8.0),
        (&[("ending", "connect_failed"), ("pool", "dead")], 8.0),
        (&[("ending", "connect_failed"), ("pool", "hanging")], 1.0),
        (&[("ending", "no_server"), ("pool", "down"), ("server", "")], 8.0),
    ] {
        assert_eq!(sessions_of(labels), count, "{labels:?}");
    }
    let route_sessions = |route| metrics.sum("acequia_route_sessions_total", &[("listener", "tls"), ("route", route)]);
    assert_eq!((route_sessions("tls#1"), route_sessions("tls#2")), (8.0, 8.0));
    let state = proxy.answer(&["status"]);
    let mut listeners = state["listeners"].as_array().unwrap().iter();
    let tls = listeners.find(|listener| listener["name"] == "tls").unwrap();
    assert_eq!(tls["routes"][1]["name"], "tls#2");
    assert_eq!(tls["routes"][1]["sessions_so_far"], 8);
    let failures = |reason| metrics.sum("acequia_connect_failures_total", &[("reason", reason)]);
    assert_eq!((failures("refused"), failures("timeout")), (8.0, 1.0));
    let bytes = |direction| metrics.sum("acequia_bytes_total", &[("pool", "good"), ("direction", direction)]);
    assert_eq!((bytes("up"), bytes("down")), (bytes_up as f64, bytes_down as f64));
    assert_eq!(
        metrics.sum("acequia_session_duration_seconds_count", &[]),
        sessions as f64
    );
    let connected = metrics.sum("acequia_connect_duration_seconds_count", &[]);
    assert_eq!(
        connected,
        sessions_of(&[("pool", "good")]) + sessions_of(&[("pool", "resets")])
    );
    let hellos = metrics.sum("acequia_hello_duration_seconds_count", &[("listener", "tls")]);
    assert_eq!(hellos, sessions_of(&[("listener", "tls")]));
    assert_eq!(
        metrics.sum("acequia_hello_duration_seconds_count", &[]),
        hellos,
        "expected no hello durations from listeners without name routes"
    );
}

#[test]
fn metrics_have_the_names_types_and_labels_of_the_table() {
    let setting = Setting::start();
    let proxy = &setting.proxy;
    let (sessions, ..) = mixed_load(proxy);
    let first = Client::connect(proxy.at("narrow"));
    let second = Client::connect(proxy.at("narrow"));
    let pauses = || {
        proxy.metrics().sum(
            "acequia_accept_pauses_total",
            &[("listener", "narrow"), ("reason", "limit")],
        )
    };
    eventually("accepting pauses at the limit", || pauses() > 0.0);
    drop((first, second));
    let metrics = metrics_after_sessions(proxy, sessions + 2);
    let ours = metrics.families.keys().filter(|name| name.starts_with("acequia_"));
    let expected: BTreeSet<_> = TABLE.iter().map(|(name, ..)| *name).collect();
    assert_eq!(ours.map(String::as_str).collect::<BTreeSet<_>>(), expected);
    for (name, kind, labels) in TABLE {
        let family = &metrics.families[*name];
        assert_eq!(
            (family.kind.as_str(), family.help.ends_with('.')),
            (*kind, true),
            "{name}"
        );
        assert!(!family.samples.is_empty(), "{name}");
        for sample in &family.samples {
            let keys: BTreeSet<_> = sample
                .labels
                .keys()
                .map(String::as_str)
                .filter(|key| *key != "le")
                .collect();
            assert_eq!(keys, labels.iter().copied().collect(), "{sample:?}");
        }
    }
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
    ] {
        assert!(metrics.sum(name, &[]) > 0.0, "{name}");
    }
    assert_eq!(
        metrics.sum("acequia_build_info", &[("version", env!("CARGO_PKG_VERSION"))]),
        1.0
    );
    assert_eq!(metrics.sum("acequia_server_up", &[("pool", "good")]), 1.0);
    assert_eq!(metrics.sum("acequia_server_up", &[("pool", "down")]), 0.0);
    assert_eq!(
        metrics.sum("acequia_health_transitions_total", &[("pool", "down"), ("to", "down")]),
        1.0
    );
    assert_eq!(
        metrics.sum("acequia_health_transitions_total", &[("pool", "good"), ("to", "up")]),
        1.0
    );
    assert!(metrics.sum("acequia_health_checks_total", &[("pool", "down"), ("result", "fail")]) >= 1.0);
    assert!(metrics.sum("acequia_health_checks_total", &[("pool", "good"), ("result", "pass")]) >= 1.0);
}

#[test]
fn a_scraper_that_asks_for_openmetrics_gets_it() {
    let server = Server::echo();
    let proxy = Proxy::start(&one_pool(&[server.address], ""));
    let scrape = |accept: &str| {
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: {accept}\r\n\r\n");
        let mut client = Client::connect(proxy.admin());
        client.send(request.as_bytes());
        String::from_utf8(client.try_read_all().unwrap()).unwrap()
    };
    let openmetrics = scrape("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3");
    assert!(openmetrics.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert!(
        openmetrics.contains("\n# TYPE acequia_connections counter\n"),
        "{openmetrics}"
    );
    assert!(
        openmetrics.contains("\nacequia_connections_total{listener="),
        "{openmetrics}"
    );
    assert!(openmetrics.trim_end().ends_with("\n# EOF"), "{openmetrics}");
    let text = scrape("*/*");
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n") && !text.contains("# EOF"));
}

#[test]
fn promtool_accepts_the_text_and_the_documentation_has_the_same_metrics() {
    let setting = Setting::start();
    let (sessions, ..) = mixed_load(&setting.proxy);
    let metrics = metrics_after_sessions(&setting.proxy, sessions);
    let text = setting.proxy.get("/metrics").1;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("metrics");
    std::fs::write(&file, text).unwrap();
    let checked = finished(
        Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(File::open(&file).unwrap()),
    );
    assert_eq!(
        (checked.code, checked.stdout + &checked.stderr),
        (Some(0), String::new())
    );
    let rows = include_str!("../../../docs/metrics.md").lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        Some((cells[0].trim_end_matches('`').to_owned(), cells[1].to_owned()))
    });
    let documented: BTreeSet<_> = rows.collect();
    let rendered = metrics.families.iter().filter(|(_, family)| !family.samples.is_empty());
    let rendered: BTreeSet<_> = rendered
        .map(|(name, family)| (name.clone(), family.kind.clone()))
        .collect();
    assert_eq!(
        rendered.difference(&documented).collect::<Vec<_>>(),
        Vec::<&(String, String)>::new()
    );
    // No TLS is terminated here, no certificate is ordered, no server is checked over TLS or with a login, no pool
    // needs a role, grows, has a fallback or discovers its servers, no route is announced, nothing is kept over a
    // restart, the configuration is not from a store, and no client cancels a query.
    let may_be_missing = [
        "acequia_announce_last_success_timestamp_seconds",
        "acequia_announce_up",
        "acequia_announced_routes",
        "acequia_announcements_refused",
        "acequia_discovery_last_success_timestamp_seconds",
        "acequia_discovery_up",
        "acequia_state_dir_unsaved",
        "acequia_remote_refused",
        "acequia_remote_revision",
        "acequia_remote_up",
        "acequia_pool_clones",
        "acequia_pool_scale_total",
        "acequia_pool_cold_starts_total",
        "acequia_tls_handshakes_total",
        "acequia_tls_handshake_seconds",
        "acequia_tls_resumptions_total",
        "acequia_certificate_expiry_timestamp_seconds",
        "acequia_certificate_not_before_timestamp_seconds",
        "acequia_crl_next_update_timestamp_seconds",
        "acequia_acme_renewals_total",
        "acequia_cancel_requests_total",
        "acequia_health_check_refused",
        "acequia_pool_fallback",
        "acequia_pool_primaries",
        "acequia_server_role_ok",
        "acequia_server_lag_seconds",
        "acequia_server_certificate_expiry_timestamp_seconds",
        "acequia_server_certificate_not_before_timestamp_seconds",
    ];
    let missing = documented.difference(&rendered).map(|(name, _)| name.as_str());
    let missing: Vec<_> = missing.filter(|name| !may_be_missing.contains(name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn live_ready_and_metrics_answer_while_draining_and_live_and_ready_also_before_checks() {
    let hanging = hanging();
    let setup = Proxy::setup(&format!(
        "[runtime]\ndrain_delay = \"1h\"\n{}",
        one_pool(&[hanging.address], "health = { timeout = \"3s\" }")
    ));
    let proxy = setup.launch();
    assert_eq!(proxy.get("/live").0, 200);
    assert_eq!(proxy.get("/ready").0, 503, "expected 503 before the first check");
    eventually("ready after the first check, which times out", || {
        proxy.get("/ready").0 == 200
    });
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "timeout")]),
        1.0
    );
    let (head, _) = http_get(proxy.admin(), "/metrics").unwrap();
    assert!(
        head.to_lowercase().contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert_eq!(proxy.get("/no-such-path").0, 404);
    proxy.signal(Signal::TERM);
    eventually("draining begins", || proxy.get("/ready").0 == 503);
    assert_eq!(proxy.get("/live").0, 200);
    assert_eq!(proxy.get("/metrics").0, 200);
}
