use super::book::LINGER;
use super::*;
use crate::account::Ending;
use crate::addr::ServerAddr;
use crate::pool::{CheckOutcome, EjectLimits, Member, MemberConfig, Policy, PoolRules, ServerSpec, Thresholds};

fn server(label: &str) -> Arc<Server> {
    server_at("10.0.0.1:1", label)
}

fn server_at(address: &str, label: &str) -> Arc<Server> {
    let spec = ServerSpec {
        label: label.into(),
        identity: label.into(),
        address: ServerAddr::new(address.parse().unwrap()),
        resolved_from: None,
    };
    Arc::new(Server::new(spec, true))
}

/// Something of each kind has happened on this server.
fn used(metrics: &Metrics, listener: &Arc<ListenerSeries>, server: &Arc<Server>) {
    let key = LineKey {
        listener: listener.id(),
        pool: "p".into(),
        server: Some(server.id()),
    };
    let line = metrics.line(&key, listener, Some(server));
    line.ended(Ending::ClientClosed, Duration::ZERO);
    line.server().unwrap().changed(true);
}

/// The pool `p` with these servers.
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
    };
    Pool::new("p".into(), rules, servers.iter().map(member).collect())
}

fn metrics() -> (Arc<Metrics>, Arc<ListenerSeries>) {
    let metrics = Metrics::new();
    let listener = metrics.listener(&"l".into());
    (Arc::new(metrics), listener)
}

#[tokio::test(start_paused = true)]
async fn series_leave_though_nobody_ever_asks_for_them() {
    let (metrics, listener) = metrics();
    let tending = tokio::spawn(Arc::clone(&metrics).tend());
    used(&metrics, &listener, &server("goes"));
    sleep(LINGER + 3 * TENDING).await;
    assert!(metrics.book().servers.is_empty() && metrics.book().lines.is_empty());
    assert!(
        !metrics.handle.render().contains("goes"),
        "not even the exporter knows of it"
    );
    tending.abort();
}

/// The lines of a text that are about a server.
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
async fn counters_of_a_server_that_left_stay_for_five_minutes_and_gauges_do_not() {
    let (metrics, listener) = metrics();
    let (stays, goes) = (server("stays"), server("goes"));
    used(&metrics, &listener, &stays);
    used(&metrics, &listener, &goes);
    let in_force = pool(&[&stays]);
    let text = || metrics.render([], [&in_force]);
    drop(goes);
    // Nobody asked while it lived.
    let first = lines_of(&text(), "goes");
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
        assert_eq!(lines_of(&text(), "goes"), first, "every scraper sees them");
        sleep(LINGER / 5).await;
    }
    sleep(LINGER / 5).await;
    let all = lines_of(&text(), "stays").len();
    assert!(all > first.len(), "it has gauges too");
    for _ in 0..3 {
        let text = text();
        assert_eq!(
            (lines_of(&text, "goes").len(), lines_of(&text, "stays").len()),
            (0, all)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_goes_on_counting() {
    let (metrics, listener) = metrics();
    used(&metrics, &listener, &server("s"));
    drop(metrics.render([], []));
    sleep(LINGER / 2).await;
    let again = server("s");
    used(&metrics, &listener, &again);
    for _ in 0..3 {
        let lines = lines_of(&metrics.render([], []), "s");
        let ended = lines.iter().find(|line| line.starts_with("acequia_sessions_total"));
        assert!(ended.is_some_and(|line| line.ends_with(" 2")), "{lines:?}");
        sleep(LINGER).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_with_sessions_that_is_configured_no_more_has_sessions_and_is_not_up() {
    let (metrics, listener) = metrics();
    let server = server("s");
    used(&metrics, &listener, &server);
    let pool = pool(&[&server]);
    let client = crate::addr::ClientAddr::new("192.0.2.1:1".parse().unwrap());
    let _lease = pool.pick(client, &[], Instant::now()).unwrap();
    let lines = lines_of(&metrics.render([], []), "s");
    assert!(
        lines.contains(&"acequia_server_sessions_active{pool=\"p\",server=\"s\"} 1".to_owned()),
        "{lines:?}"
    );
    assert!(
        !lines.iter().any(|line| line.starts_with("acequia_server_up")),
        "{lines:?}"
    );
    let lines = lines_of(&metrics.render([], [&pool]), "s");
    assert!(
        lines.contains(&"acequia_server_up{pool=\"p\",server=\"s\"} 0".to_owned()),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_series_of_a_pool_are_there_as_long_as_it_is_configured() {
    let (metrics, listener) = metrics();
    let of = |what: &str| {
        let text = metrics.render([], []);
        let line = text.lines().find(|line| line.starts_with(what)).map(str::to_owned);
        line.and_then(|line| Some(line.rsplit_once(' ')?.1.to_owned()))
    };
    let killed = || of("acequia_pool_sessions_total{pool=\"p\",ending=\"killed\"}");
    let closed = || of("acequia_pool_sessions_total{pool=\"p\",ending=\"client_closed\"}");
    let durations = || of("acequia_session_duration_seconds_count{pool=\"p\"}");
    assert_eq!(killed(), None);
    metrics.configure_pools([&"p".into()]);
    assert_eq!((killed().as_deref(), durations().as_deref()), (Some("0"), Some("0")));
    used(&metrics, &listener, &server("first"));
    for _ in 0..3 {
        sleep(LINGER).await;
        assert_eq!((closed().as_deref(), durations().as_deref()), (Some("1"), Some("1")));
    }
    used(&metrics, &listener, &server("second"));
    assert_eq!((closed().as_deref(), durations().as_deref()), (Some("2"), Some("2")));
    metrics.configure_pools([]);
    assert_eq!(closed().as_deref(), Some("2"));
    sleep(LINGER).await;
    assert_eq!((closed(), durations()), (None, None));
    assert!(of("acequia_pool_sessions_total{pool=\"\",ending=\"refused\"}").is_some());
}

#[test]
fn a_server_that_has_moved_has_one_series() {
    let (metrics, listener) = metrics();
    let (before, after) = (server_at("10.0.0.1:1", "s"), server_at("10.0.0.2:1", "s"));
    for server in [&after, &before] {
        used(&metrics, &listener, server);
    }
    let thresholds = Thresholds { rise: 1, fall: 1 };
    after.record_check(&CheckOutcome::Pass, thresholds);
    before.record_check(&CheckOutcome::Fail("gone".into()), thresholds);
    let in_force = pool(&[&after]);
    let text = || metrics.render([], [&in_force]);
    let lines = |of: &str| text().lines().filter(|line| line.starts_with(of)).count();
    assert_eq!(lines("acequia_server_up{"), 1, "{}", text());
    assert_eq!(lines("acequia_connect_duration_seconds_count{"), 1, "{}", text());
    assert!(
        text().contains("acequia_server_up{pool=\"p\",server=\"s\"} 1"),
        "{}",
        text()
    );
    drop(before);
    assert_eq!(lines("acequia_sessions_total{"), 1);
}

#[test]
fn a_certificate_that_is_looked_at_no_more_has_no_end() {
    let (metrics, server) = (Metrics::new(), server("s"));
    let series = metrics.server(&"p".into(), &server);
    let pool = pool(&[&server]);
    let told = || {
        let text = metrics.render([], [&pool]);
        text.contains("acequia_server_certificate_expiry_timestamp_seconds{pool=\"p\",server=\"s\"} 7\n")
    };
    assert!(!told());
    series.certificate_ends(7);
    assert!(told() && told());
    series.forget_certificate();
    assert!(!told());
}
