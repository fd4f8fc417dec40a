use super::registry::RETENTION;
use super::*;
use crate::account::Ending;
use crate::addr::ServerAddr;
use crate::pool::{
    CheckOutcome, CheckVerdict, EjectLimits, Member, MemberConfig, Policy, PoolRules, ServerSpec, Thresholds,
};

fn server(label: &str) -> Arc<Server> {
    server_at("10.0.0.1:1", label)
}

/// A server with active checks, of which none has run.
fn server_at(address: &str, label: &str) -> Arc<Server> {
    let spec = ServerSpec {
        label: label.into(),
        identity: label.into(),
        address: ServerAddr::new(address.parse().unwrap()),
        resolved_from: None,
    };
    Arc::new(Server::new(spec, true))
}

/// Counts a session and a health transition of this server.
fn record_events(metrics: &Metrics, listener: &Arc<ListenerSeries>, server: &Arc<Server>) {
    let key = PathKey {
        listener: listener.id(),
        pool: "p".into(),
        server: Some(server.id()),
    };
    let path = metrics.path(&key, listener, Some(server));
    path.record_session(Ending::ClientClosed, Duration::ZERO);
    path.server().unwrap().record_transition(CheckVerdict::Up);
}

/// The pool `p`, with these servers.
fn pool(servers: &[&Arc<Server>]) -> Pool {
    let member = |server: &&Arc<Server>| Member::new(Arc::clone(server), MemberConfig::default());
    let rules = PoolRules {
        policy: Policy::LeastConn,
        eject: EjectLimits {
            after: 3,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(1),
            percent_max: 50,
            on_reset: false,
        },
        connect_timeout: Duration::from_secs(1),
        slow_start: None,
        panic_threshold: None,
        queue: None,
        wake: None,
        waits_for_return: false,
    };
    Pool::new("p".into(), rules, servers.iter().map(member).collect())
}

/// What a scrape shows while these pools are in force. Of other servers it shows counters, and open sessions if any.
fn render(metrics: &Metrics, pools: &[&Pool]) -> String {
    metrics.render([], pools.iter().copied(), [], [], &[])
}

fn metrics() -> (Arc<Metrics>, Arc<ListenerSeries>) {
    let metrics = Metrics::new();
    let listener = metrics.listener(&"l".into());
    (Arc::new(metrics), listener)
}

#[tokio::test(start_paused = true)]
async fn expired_series_are_removed_without_any_scrape() {
    let (metrics, listener) = metrics();
    let upkeep = tokio::spawn(Arc::clone(&metrics).run_upkeep());
    record_events(&metrics, &listener, &server("removed"));
    sleep(RETENTION + 3 * UPKEEP_INTERVAL).await;
    assert!(metrics.registry.lock().servers.is_empty() && metrics.registry.lock().paths.is_empty());
    assert!(
        !metrics.handle.render().contains("removed"),
        "expected the exporter to have forgotten the server"
    );
    upkeep.abort();
}

/// The lines of `text` with this server label, sorted.
fn lines_of(text: &str, label: &str) -> Vec<String> {
    let label = format!("server=\"{label}\"");
    let mut lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains(&label))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[tokio::test(start_paused = true)]
async fn counters_of_a_removed_server_are_kept_for_five_minutes_and_gauges_are_not() {
    let (metrics, listener) = metrics();
    let (kept, removed) = (server("kept"), server("removed"));
    record_events(&metrics, &listener, &kept);
    record_events(&metrics, &listener, &removed);
    let configured = pool(&[&kept]);
    let text = || render(&metrics, &[&configured]);
    drop(removed);
    // This is the first scrape: even if a server is removed before any scrape, its counters are shown.
    let first = lines_of(&text(), "removed");
    assert!(first.len() > 5, "{first:?}");
    assert!(
        first
            .iter()
            .any(|line| line.contains("_sessions_total") && line.ends_with(" 1")),
        "{first:?}"
    );
    assert!(
        !first
            .iter()
            .any(|line| line.contains("_up{") || line.contains("_active{")),
        "{first:?}"
    );
    for _ in 0..4 {
        assert_eq!(
            lines_of(&text(), "removed"),
            first,
            "expected every scrape to show the same counters"
        );
        sleep(RETENTION / 5).await;
    }
    sleep(RETENTION / 5).await;
    let kept_lines = lines_of(&text(), "kept").len();
    assert!(kept_lines > first.len(), "expected gauges as well as counters");
    for _ in 0..3 {
        let text = text();
        assert_eq!(
            (lines_of(&text, "removed").len(), lines_of(&text, "kept").len()),
            (0, kept_lines)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_continues_its_counters() {
    let (metrics, listener) = metrics();
    record_events(&metrics, &listener, &server("s"));
    drop(render(&metrics, &[]));
    sleep(RETENTION / 2).await;
    let again = server("s");
    record_events(&metrics, &listener, &again);
    for _ in 0..3 {
        let lines = lines_of(&render(&metrics, &[]), "s");
        let ended = lines.iter().find(|line| line.starts_with("acequia_sessions_total"));
        assert!(ended.is_some_and(|line| line.ends_with(" 2")), "{lines:?}");
        sleep(RETENTION).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_server_with_sessions_keeps_its_session_gauge_and_loses_its_up_gauge() {
    let (metrics, listener) = metrics();
    let server = server("s");
    record_events(&metrics, &listener, &server);
    let pool = pool(&[&server]);
    let client = crate::addr::ClientAddr::new("192.0.2.1:1".parse().unwrap());
    let _lease = pool.pick(client, &[], Instant::now()).unwrap();
    let lines = lines_of(&render(&metrics, &[]), "s");
    assert!(
        lines.contains(&"acequia_server_sessions_active{pool=\"p\",server=\"s\"} 1".to_owned()),
        "{lines:?}"
    );
    assert!(
        !lines.iter().any(|line| line.starts_with("acequia_server_up")),
        "{lines:?}"
    );
    let lines = lines_of(&render(&metrics, &[&pool]), "s");
    // 0, because no check of the server has run.
    assert!(
        lines.contains(&"acequia_server_up{pool=\"p\",server=\"s\"} 0".to_owned()),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_has_series_while_it_is_configured_and_for_five_minutes_more() {
    let (metrics, listener) = metrics();
    let value = |series: &str| {
        let text = render(&metrics, &[]);
        let line = text.lines().find(|line| line.starts_with(series)).map(str::to_owned);
        line.and_then(|line| Some(line.rsplit_once(' ')?.1.to_owned()))
    };
    let killed = || value("acequia_pool_sessions_total{pool=\"p\",ending=\"killed\"}");
    let closed = || value("acequia_pool_sessions_total{pool=\"p\",ending=\"client_closed\"}");
    let durations = || value("acequia_session_duration_seconds_count{pool=\"p\"}");
    assert_eq!(killed(), None);
    metrics.configure_pools([&"p".into()]);
    assert_eq!((killed().as_deref(), durations().as_deref()), (Some("0"), Some("0")));
    record_events(&metrics, &listener, &server("first"));
    for _ in 0..3 {
        sleep(RETENTION).await;
        assert_eq!((closed().as_deref(), durations().as_deref()), (Some("1"), Some("1")));
    }
    record_events(&metrics, &listener, &server("second"));
    assert_eq!((closed().as_deref(), durations().as_deref()), (Some("2"), Some("2")));
    metrics.configure_pools([]);
    assert_eq!(closed().as_deref(), Some("2"));
    sleep(RETENTION).await;
    assert_eq!((closed(), durations()), (None, None));
    // The series of sessions without a pool are permanent.
    assert!(value("acequia_pool_sessions_total{pool=\"\",ending=\"refused\"}").is_some());
}

#[test]
fn a_server_whose_address_changed_has_one_series_of_each_metric() {
    let (metrics, listener) = metrics();
    let (old, new) = (server_at("10.0.0.1:1", "s"), server_at("10.0.0.2:1", "s"));
    for server in [&new, &old] {
        record_events(&metrics, &listener, server); // the old one last: its sessions may go on after the change
    }
    let thresholds = Thresholds { rise: 1, fall: 1 };
    new.record_check(&CheckOutcome::Pass, thresholds);
    old.record_check(&CheckOutcome::Fail("gone".into()), thresholds);
    let configured = pool(&[&new]);
    let text = || render(&metrics, &[&configured]);
    let lines = |prefix: &str| text().lines().filter(|line| line.starts_with(prefix)).count();
    assert_eq!(lines("acequia_server_up{"), 1, "{}", text());
    assert_eq!(lines("acequia_connect_duration_seconds_count{"), 1, "{}", text());
    assert!(
        text().contains("acequia_server_up{pool=\"p\",server=\"s\"} 1"),
        "{}",
        text()
    );
    drop(old);
    assert_eq!(lines("acequia_sessions_total{"), 1);
}

#[test]
fn the_times_of_a_certificate_are_absent_while_no_check_reads_it() {
    let (metrics, server) = (Metrics::new(), server("s"));
    let series = metrics.server(&"p".into(), &server);
    let pool = pool(&[&server]);
    let rendered = || {
        let text = render(&metrics, &[&pool]);
        ["not_before", "expiry"].map(|what| {
            let series = format!("acequia_server_certificate_{what}_timestamp_seconds{{pool=\"p\",server=\"s\"}} ");
            text.lines()
                .find_map(|line| line.strip_prefix(&series))
                .map(str::to_owned)
        })
    };
    assert_eq!(rendered(), [None, None]);
    series.publish_certificate(3, 7);
    for _ in 0..2 {
        assert_eq!(rendered(), ["3", "7"].map(|at| Some(at.to_owned())));
    }
    series.clear_certificate();
    assert_eq!(rendered(), [None, None]);
}

/// A worker locks the registry when it sees a server for the first time. A scrape of very many servers takes long, so
/// it must not hold this lock while it writes the gauges.
#[test]
fn workers_do_not_wait_for_a_scrape() {
    let (metrics, listener) = metrics();
    record_events(&metrics, &listener, &server("s"));
    let pool = pool(&[]);
    let assert_unlocked = || assert!(metrics.registry.try_lock().is_some());
    let pools = std::iter::once(&pool).inspect(|_| assert_unlocked()); // in the middle of the scrape
    let text = metrics.render([], pools, [], [], &[]);
    assert!(text.contains("acequia_sessions_total"));
}
