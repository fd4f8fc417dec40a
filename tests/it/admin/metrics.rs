//! Metrics have the documented names, counters add up, gauges return to 0; `/live` and `/ready`.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::support::client::{Client, ask};
use crate::support::configs::{listener, one_pool, pool, tls_listener};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::metrics::{Metrics, Sample};
use crate::support::process::{Port, finished};
use crate::support::proxy::{Proxy, http_get};
use crate::support::server::{Hanging, Server, hanging, list, refusing};
use rustix::process::Signal;

/// Name, type and labels of every documented metric.
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

/// Listeners that together produce every kind of ending. Each but `narrow` and `tls` has a pool of the same name.
fn config(good: SocketAddr, resets: SocketAddr, dead: SocketAddr, hanging: SocketAddr) -> String {
    let unchecked = "health = { check = \"off\" }\nconnect_timeout = \"300ms\"";
    let tls_keys = "hello_timeout = \"300ms\"\nhello_max = \"1KiB\"";
    let routes = [("good.example", "pool = \"good\""), ("closed.example", "refuse = true")];
    [
        "[guards.wide]\nsessions = 100000\n".to_owned(),
        listener("good", "good", "guards = \"wide\"\nidle_timeout = \"300ms\""),
        listener("resets", "resets", ""),
        listener("dead", "dead", ""),
        listener("down", "down", ""),
        listener("hanging", "hanging", ""),
        listener("narrow", "good", "max_connections = 1"),
        tls_listener("tls", tls_keys, &routes),
        pool("good", &[good], ""),
        pool("resets", &[resets], ""),
        pool("dead", &[dead], unchecked),
        pool("down", &[dead], "max_sessions = 10\nqueue = {}"),
        pool("hanging", &[hanging], unchecked),
    ]
    .concat()
}

/// Runs sessions with every kind of ending. Returns their number, and the bytes that clients of the pool `good` sent and
/// received.
pub(super) fn mixed_load(proxy: &Proxy) -> (usize, usize, usize) {
    let read_to_end = |mut client: Client| drop(client.try_read_all());
    let (tls, good) = (proxy.at("tls"), Hello::named("good.example").bytes());
    for round in 0..8 {
        for refused in [
            Hello::named("other.example").bytes(),
            Hello::named("closed.example").bytes(),
            Hello::named("good.example").padded(2000).bytes(),
            b"\x16\x03\x01\x00\x00".to_vec(),
            b"plain".to_vec(),
        ] {
            let mut client = Client::connect(tls);
            client.send(&refused);
            read_to_end(client);
        }
        let mut slow = Client::connect(tls);
        slow.send(&good[..20]);
        if round == 0 {
            read_to_end(slow)
        } else {
            slow.reset()
        } // ends before the ClientHello is complete: by `hello_timeout`, or by the client's reset
        read_to_end({
            let mut early = Client::connect(tls);
            early.finish();
            early
        });
        assert_eq!(ask(tls, &good), good);
        assert_eq!(ask(proxy.at("good"), b"ping"), b"ping");
        assert_eq!(ask(proxy.at("narrow"), b"ping"), b"ping");
        let mut in_the_middle = Client::connect(proxy.at("good"));
        in_the_middle.send(b"ping").read(4);
        in_the_middle.reset();
        let mut answered = Client::connect(proxy.at("resets"));
        answered.send(b"x");
        read_to_end(answered);
        read_to_end(Client::connect(proxy.at("dead")));
        read_to_end(Client::connect(proxy.at("down")));
        let connecting = Client::connect(proxy.at("hanging"));
        if round == 0 {
            read_to_end(connecting)
        } else {
            connecting.reset()
        }
    }
    read_to_end(Client::connect(proxy.at("good"))); // ends by `idle_timeout`
    let per_round = good.len() + 3 * 4;
    (8 * 15 + 1, 8 * per_round, 8 * per_round)
}

/// A proxy in front of servers that echo, reset, refuse and hang.
pub(super) struct Setting {
    pub(super) proxy: Proxy,
    _servers: [Server; 2],
    _dead: Port,
    _hanging: Hanging,
}

impl Setting {
    pub(super) fn start() -> Self {
        let servers = [Server::echo(), Server::run(reset_after_first_bytes)];
        let (dead, hanging) = (refusing(), hanging());
        let [good, resets] = servers.each_ref().map(|server| server.address);
        let proxy = Proxy::start(&config(good, resets, dead.address, hanging.address));
        Self {
            proxy,
            _servers: servers,
            _dead: dead,
            _hanging: hanging,
        }
    }
}

fn reset_after_first_bytes(stream: TcpStream) {
    let mut client = Client(stream);
    client.read_some();
    client.reset();
}

/// Waits until `sessions` sessions have ended and none is open; returns the metrics then.
fn metrics_after_sessions(proxy: &Proxy, sessions: usize) -> Metrics {
    eventually("all sessions have ended", || {
        let metrics = proxy.metrics();
        metrics.sum("acequia_sessions_total", &[]) == sessions as f64
            && metrics.sum("acequia_sessions_active", &[]) == 0.0
    });
    proxy.metrics()
}

#[test]
fn after_failures_in_every_phase_gauges_return_to_0_and_counters_add_up() {
    let setting = Setting::start();
    let proxy = &setting.proxy;
    let (sessions, up, down) = mixed_load(proxy);
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
    assert_eq!((bytes("up"), bytes("down")), (up as f64, down as f64));
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
fn metrics_have_the_documented_names_types_and_labels() {
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
    let promised: BTreeSet<_> = TABLE.iter().map(|(name, ..)| *name).collect();
    assert_eq!(ours.map(String::as_str).collect::<BTreeSet<_>>(), promised);
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
fn promtool_accepts_the_text_and_every_series_is_documented() {
    let setting = Setting::start();
    let (sessions, ..) = mixed_load(&setting.proxy);
    let metrics = metrics_after_sessions(&setting.proxy, sessions);
    let text = setting.proxy.get("/metrics").1;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics");
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
    // No TLS ends here, no certificate is ordered, no server is checked by TLS or a login, no pool needs a role, grows or
    // has a source of its servers, no route is announced, nothing is kept over a restart, the configuration is not from a store,
    // and no client cancels a query.
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
fn a_pool_has_a_series_for_every_ending_before_the_first_session() {
    let server = Server::echo();
    let proxy = Proxy::start(&format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [{}]",
        list(&[&server])
    ));
    let endings = || -> Vec<(String, f64)> {
        let metrics = proxy.metrics();
        let series = metrics.series("acequia_pool_sessions_total", &[("pool", "p")]);
        series
            .iter()
            .map(|sample| (sample.labels["ending"].clone(), sample.value))
            .collect()
    };
    let before = endings();
    assert!(
        before.len() > 20 && before.iter().all(|(_, value)| *value == 0.0),
        "{before:?}"
    );
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    eventually("the session is counted", || {
        endings()
            .iter()
            .any(|(ending, value)| ending == "client_closed" && *value == 1.0)
    });
    assert_eq!(endings().len(), before.len());
    let metrics = proxy.metrics();
    let without_pool = metrics.series("acequia_pool_sessions_total", &[("pool", "")]);
    assert_eq!(without_pool.len(), before.len());
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
    let samples = |metrics: &Metrics, kind: &str| -> Vec<Sample> {
        let families = metrics.families.values().filter(|family| family.kind == kind);
        let samples = families.flat_map(|family| family.samples.iter().cloned());
        samples
            .filter(|sample| sample.labels.values().any(|value| value == "removed"))
            .collect()
    };
    let identity = |sample: &Sample| (sample.name.clone(), sample.labels.clone(), sample.value.to_string());
    assert_eq!(ask(proxy.at("removed"), b"ping"), b"ping");
    assert_eq!(proxy.access_lines(1)[0]["pool"], "removed");
    // There was no scrape so far.
    proxy.rewrite(&kept);
    assert_eq!(proxy.command(&["reload"]).code, Some(0));
    let first = proxy.metrics();
    assert_eq!(samples(&first, "gauge").len(), 0, "{:?}", samples(&first, "gauge"));
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
        let counted = |metrics: &Metrics| samples(metrics, kind).iter().map(identity).collect::<BTreeSet<_>>();
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
    let config = |server: &Server| {
        let servers = list(&[server]);
        format!("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [{servers}]")
    };
    let proxy = Proxy::start(&config(&servers[0]));
    for (round, server) in servers.iter().enumerate() {
        assert!(round == 0 || proxy.reload(&config(server)));
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
        let of_one: BTreeSet<_> = series.iter().map(|sample| sample.labels["le"].as_str()).collect();
        let mut bounds: Vec<f64> = of_one.into_iter().map(|bound| bound.parse().unwrap()).collect();
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
        assert_eq!((bounds[0], bounds[bounds.len() - 2]), (first, last), "{name}");
    }
}

#[test]
fn bytes_of_an_open_session_are_counted_while_it_lasts() {
    let server = Server::echo();
    let proxy = Proxy::start(&one_pool(&[server.address], ""));
    let mut client = Client::connect(proxy.at("l"));
    for sent in [1000, 2000, 3000] {
        client.send(&[7; 1000]).read(1000);
        eventually("its bytes are counted", || {
            let metrics = proxy.metrics();
            let bytes = |direction| metrics.sum("acequia_bytes_total", &[("direction", direction), ("listener", "l")]);
            bytes("up") == f64::from(sent) && bytes("down") == f64::from(sent)
        });
    }
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_sessions_active", &[("listener", "l")]), 1.0);
    assert_eq!(metrics.sum("acequia_server_sessions_active", &[("pool", "p")]), 1.0);
    assert_eq!(metrics.sum("acequia_sessions_total", &[]), 0.0);
}

#[test]
fn live_ready_and_metrics_answer_before_checks_and_while_draining() {
    let hanging = hanging();
    let proxy = Proxy::setup(&format!(
        "[runtime]\ndrain_delay = \"1h\"\n{}",
        one_pool(&[hanging.address], "health = { timeout = \"3s\" }")
    ));
    let proxy = proxy.launch();
    assert_eq!(proxy.get("/live").0, 200);
    assert_eq!(proxy.get("/ready").0, 503, "expected 503 before the first check");
    eventually("the check has timed out", || proxy.get("/ready").0 == 200);
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
}
