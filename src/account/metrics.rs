//! The book of all series, and its text for `/metrics`.
//!
//! A series leaves with the server it is about. The exporter can only forget series that nobody has touched for a
//! while; so every series still wanted is touched before each rendering, and the while is as short as can be.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::{Counter, Gauge, Key, Label, Recorder};
use metrics_exporter_prometheus::formatting::{sanitize_label_value, write_help_line, write_type_line};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::time::sleep;

use super::histogram::{Histogram, SESSION_BOUNDS};
use super::series::{LineSeries, ListenerId, ListenerSeries, METADATA, ServerSeries, Source, label};
use crate::listen::Places;
use crate::pool::{Server, ServerId};

/// How often the book is tended when nobody asks for its text. A rendering takes milliseconds where there are
/// thousands of series; those of servers that are gone may stay for a while.
const TENDING: Duration = Duration::from_secs(60);

/// The names, as the specification fixes them.
pub(super) mod names {
    pub(in crate::account) const BUILD_INFO: &str = "acequia_build_info";
    pub(in crate::account) const CONNECTIONS: &str = "acequia_connections_total";
    pub(in crate::account) const SESSIONS: &str = "acequia_sessions_total";
    pub(in crate::account) const SESSIONS_ACTIVE: &str = "acequia_sessions_active";
    pub(in crate::account) const SERVER_SESSIONS_ACTIVE: &str = "acequia_server_sessions_active";
    pub(in crate::account) const BYTES: &str = "acequia_bytes_total";
    pub(in crate::account) const HELLO_DURATION: &str = "acequia_hello_duration_seconds";
    pub(in crate::account) const CONNECT_DURATION: &str = "acequia_connect_duration_seconds";
    pub(in crate::account) const CONNECT_FAILURES: &str = "acequia_connect_failures_total";
    pub(in crate::account) const SESSION_DURATION: &str = "acequia_session_duration_seconds";
    pub(in crate::account) const SERVER_UP: &str = "acequia_server_up";
    pub(in crate::account) const CERTIFICATE_EXPIRY: &str = "acequia_server_certificate_expiry_timestamp_seconds";
    pub(in crate::account) const HEALTH_CHECKS: &str = "acequia_health_checks_total";
    pub(in crate::account) const HEALTH_TRANSITIONS: &str = "acequia_health_transitions_total";
    pub(in crate::account) const ACCEPT_PAUSES: &str = "acequia_accept_pauses_total";
    pub(in crate::account) const CONFIG_RELOADS: &str = "acequia_config_reloads_total";
    pub(in crate::account) const CONFIG_LAST_RELOAD: &str = "acequia_config_last_reload_timestamp_seconds";
    pub(in crate::account) const LOG_LINES_DROPPED: &str = "acequia_log_lines_dropped_total";
}
use names::*;

const COUNTERS: &[(&str, &str)] = &[
    (CONNECTIONS, "Clients let in."),
    (SESSIONS, "Sessions that are over, by how they ended."),
    (BYTES, "Bytes read from clients (up) and servers (down)."),
    (CONNECT_FAILURES, "Attempts to connect to a server that failed."),
    (HEALTH_CHECKS, "Health checks, by result."),
    (HEALTH_TRANSITIONS, "Changes of what the health checks say of a server."),
    (
        ACCEPT_PAUSES,
        "Times accepting had to rest although a client was there.",
    ),
    (CONFIG_RELOADS, "Reloads of the configuration, by result."),
    (LOG_LINES_DROPPED, "Lines of the access log that could not be written."),
];

const GAUGES: &[(&str, &str)] = &[
    (BUILD_INFO, "1, labelled with the version."),
    (
        CONFIG_LAST_RELOAD,
        "When the configuration in force was put in force, in seconds since the epoch.",
    ),
    (SESSIONS_ACTIVE, "Sessions now."),
    (
        SERVER_SESSIONS_ACTIVE,
        "Sessions on a server now, those being connected included.",
    ),
    (
        SERVER_UP,
        "Whether a server is in use: up by its checks and not ejected.",
    ),
    (
        CERTIFICATE_EXPIRY,
        "When the certificate ends that a server showed at its latest check, in seconds since the epoch.",
    ),
];

/// What tells one line of the ledger from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LineKey {
    /// Where the session came in.
    pub listener: ListenerId,
    /// The pool that was chosen; empty: none.
    pub pool: Arc<str>,
    /// The server that was chosen.
    pub server: Option<ServerId>,
}

/// All series of the process.
pub struct Metrics {
    source: Source,
    handle: PrometheusHandle,
    process: metrics_process::Collector,
    build_info: Gauge,
    lines_dropped: Counter,
    /// Of those that were done, and of those that were not.
    reloads: [Counter; 2],
    last_reload: Gauge,
    /// Seconds since the epoch.
    put_in_force: AtomicU64,
    // Std mutexes. The book's is taken when a worker meets a line for the first time, and when somebody looks; the
    // other makes touching and rendering one step, lest a rendering between them forget what is wanted.
    book: Mutex<Book>,
    rendering: Mutex<()>,
}

#[derive(Default)]
struct Book {
    listeners: Vec<Arc<ListenerSeries>>,
    /// By pool; those of sessions that reached none under the empty name.
    durations: HashMap<Arc<str>, Arc<Histogram>>,
    /// By pool and by what they are called.
    servers: HashMap<[Arc<str>; 2], Arc<ServerSeries>>,
    lines: HashMap<LineKey, Arc<LineSeries>>,
}

impl Metrics {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .idle_timeout(
                MetricKindMask::COUNTER | MetricKindMask::GAUGE,
                Some(Duration::from_nanos(1)),
            )
            .build_recorder();
        for (name, help) in COUNTERS {
            recorder.describe_counter((*name).into(), None, (*help).into());
        }
        for (name, help) in GAUGES {
            recorder.describe_gauge((*name).into(), None, (*help).into());
        }
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(&recorder, || process.describe());
        let version = vec![Label::from_static_parts("version", env!("CARGO_PKG_VERSION"))];
        Self {
            build_info: recorder.register_gauge(&Key::from_parts(BUILD_INFO, version), &METADATA),
            lines_dropped: recorder.register_counter(&Key::from_name(LOG_LINES_DROPPED), &METADATA),
            reloads: ["ok", "error"].map(|result| {
                let labels = vec![Label::from_static_parts("result", result)];
                recorder.register_counter(&Key::from_parts(CONFIG_RELOADS, labels), &METADATA)
            }),
            last_reload: recorder.register_gauge(&Key::from_name(CONFIG_LAST_RELOAD), &METADATA),
            put_in_force: AtomicU64::new(seconds_since_the_epoch()),
            handle: recorder.handle(),
            source: Arc::new(recorder),
            process,
            book: Mutex::default(),
            rendering: Mutex::default(),
        }
    }

    /// The series of a listener, opened with these places if need be. They leave when nobody holds them any more.
    pub fn listener(&self, name: &Arc<str>, places: impl FnOnce() -> Places) -> Arc<ListenerSeries> {
        let mut book = self.book();
        if let Some(known) = book.listeners.iter().find(|series| series.name() == name) {
            return Arc::clone(known);
        }
        let series = Arc::new(ListenerSeries::new(&self.source, name, places()));
        book.listeners.push(Arc::clone(&series));
        series
    }

    /// The listeners there are.
    #[must_use]
    pub fn listeners(&self) -> Vec<Arc<ListenerSeries>> {
        self.book().listeners.clone()
    }

    /// Only these pools are configured: what there is of others leaves, once their last session has ended.
    pub fn keep_pools(&self, is_kept: impl Fn(&str) -> bool) {
        let book = self.book();
        let others = book
            .lines
            .iter()
            .filter(|(key, _)| !key.pool.is_empty() && !is_kept(&key.pool));
        others.for_each(|(_, line)| line.retire());
    }

    /// The series of a server, opened if need be.
    pub fn server(&self, pool: &Arc<str>, server: &Arc<Server>) -> Arc<ServerSeries> {
        let name = [pool, &server.spec().label].map(Arc::clone);
        let series = opened(&mut self.book().servers, &name, || {
            let [pool, server] = &name;
            ServerSeries::new(&self.source, [label("pool", pool), label("server", server)])
        });
        series.take_in(server);
        series
    }

    /// The series of a line, opened if need be; `server` is the one of the key.
    pub fn line(&self, key: &LineKey, listener: &Arc<ListenerSeries>, server: Option<&Arc<Server>>) -> Arc<LineSeries> {
        let server_series = server.map(|server| (Arc::downgrade(server), self.server(&key.pool, server)));
        let mut book = self.book();
        let labels = [
            label("listener", listener.name()),
            label("pool", &key.pool),
            label(
                "server",
                &server.map_or_else(|| Arc::from(""), |server| Arc::clone(&server.spec().label)),
            ),
        ];
        let duration = opened(&mut book.durations, &key.pool, || Histogram::new(SESSION_BOUNDS));
        if book.lines.get(key).is_some_and(|line| line.is_over()) {
            book.lines.remove(key);
        }
        opened(&mut book.lines, key, || {
            LineSeries::new(&self.source, &labels, duration, listener, server_series)
        })
    }

    /// A reload was done, or was not for a mistake.
    pub fn reloaded(&self, is_done: bool) {
        self.reloads[usize::from(!is_done)].increment(1);
        if is_done {
            self.put_in_force.store(seconds_since_the_epoch(), Relaxed);
        }
    }

    /// Counts lines of the access log that could not be written.
    pub fn lines_dropped(&self) -> Counter {
        self.lines_dropped.clone()
    }

    /// The text of the exposition format.
    #[must_use]
    pub fn render(&self) -> String {
        let _one_step = self.rendering.lock().unwrap_or_else(PoisonError::into_inner);
        metrics::with_local_recorder(&*self.source, || self.process.collect());
        self.build_info.set(1.0);
        self.lines_dropped.increment(0);
        self.reloads.iter().for_each(|reloads| reloads.increment(0));
        self.last_reload.set(self.put_in_force.load(Relaxed) as f64);
        let mut book = self.book();
        book.listeners.retain(|listener| Arc::strong_count(listener) > 1);
        book.lines.retain(|_, line| !line.is_over());
        book.servers.retain(|_, server| !server.is_over());
        book.durations.retain(|_, duration| Arc::strong_count(duration) > 1);
        book.listeners.iter().for_each(|listener| listener.show());
        book.servers.values().for_each(|server| server.show());
        book.lines.values().for_each(|line| line.show());
        let histograms = book.histograms();
        drop(book);
        self.handle.render() + &histograms
    }

    /// Forgets what is about servers that are gone, for as long as it is polled, whether or not anybody asks for the
    /// text. The exporter forgets only while it renders, and only at the second rendering what the first found changed.
    pub async fn tend(self: Arc<Self>) {
        loop {
            sleep(TENDING).await;
            drop(self.render());
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn seconds_since_the_epoch() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The value of a key, made if it is not there.
fn opened<K: Hash + Eq + Clone, V>(map: &mut HashMap<K, Arc<V>>, key: &K, make: impl FnOnce() -> V) -> Arc<V> {
    Arc::clone(map.entry(key.clone()).or_insert_with(|| Arc::new(make())))
}

impl Book {
    fn histograms(&self) -> String {
        let mut text = String::new();
        head(
            &mut text,
            HELLO_DURATION,
            "From accept until it was known what the client wants.",
        );
        for listener in &self.listeners {
            listener
                .hello
                .write(HELLO_DURATION, &pairs(&[label("listener", listener.name())]), &mut text);
        }
        head(
            &mut text,
            CONNECT_DURATION,
            "Connecting to a server, successful attempts.",
        );
        for server in self.servers.values() {
            server
                .connect
                .write(CONNECT_DURATION, &pairs(&server.labels), &mut text);
        }
        head(&mut text, SESSION_DURATION, "From accept to the end of a session.");
        for (pool, duration) in &self.durations {
            duration.write(SESSION_DURATION, &pairs(&[label("pool", pool)]), &mut text);
        }
        text
    }
}

fn head(text: &mut String, name: &str, help: &str) {
    write_help_line(text, name, None, None, help);
    write_type_line(text, name, None, None, "histogram");
}

/// `key="value",…` as it stands between braces.
fn pairs(labels: &[Label]) -> String {
    let pair = |label: &Label| format!("{}=\"{}\"", label.key(), sanitize_label_value(label.value()));
    labels.iter().map(pair).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Ending;
    use crate::addr::ServerAddr;
    use crate::listen::Room;
    use crate::pool::ServerSpec;
    use crate::pool::health::{Thresholds, Verdict};

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

    fn metrics() -> (Arc<Metrics>, Arc<ListenerSeries>) {
        let metrics = Metrics::new();
        let listener = metrics.listener(&"l".into(), || Places::new(None, Room::new(Some(1))));
        (Arc::new(metrics), listener)
    }

    #[tokio::test(start_paused = true)]
    async fn series_leave_though_nobody_ever_asks_for_them() {
        let (metrics, listener) = metrics();
        let tending = tokio::spawn(Arc::clone(&metrics).tend());
        used(&metrics, &listener, &server("goes"));
        sleep(3 * TENDING).await;
        assert!(metrics.book().servers.is_empty() && metrics.book().lines.is_empty());
        assert!(
            !metrics.handle.render().contains("goes"),
            "not even the exporter knows of it"
        );
        tending.abort();
    }

    #[test]
    fn series_leave_with_their_server_and_idle_ones_stay() {
        let (metrics, listener) = metrics();
        let (stays, goes) = (server("stays"), server("goes"));
        used(&metrics, &listener, &stays);
        used(&metrics, &listener, &goes);
        let of = |label: &str| {
            let label = format!("server=\"{label}\"");
            metrics.render().lines().filter(|line| line.contains(&label)).count()
        };
        let all = of("stays");
        assert!(all > 5 && of("goes") == all, "{}", metrics.render());
        drop(goes);
        for _ in 0..3 {
            assert_eq!((of("goes"), of("stays")), (0, all));
        }
    }

    #[test]
    fn a_server_that_has_moved_has_one_series() {
        let (metrics, listener) = metrics();
        let (before, after) = (server_at("10.0.0.1:1", "s"), server_at("10.0.0.2:1", "s"));
        for server in [&after, &before] {
            used(&metrics, &listener, server);
        }
        let thresholds = Thresholds { rise: 1, fall: 1 };
        after.record_check(&Verdict::Pass, thresholds);
        before.record_check(&Verdict::Fail("gone".into()), thresholds);
        let text = || metrics.render();
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
        assert_eq!(
            metrics.book().lines.len(),
            1,
            "of the line to where it was nothing is kept"
        );
    }

    #[test]
    fn a_certificate_that_is_looked_at_no_more_has_no_end() {
        let (metrics, server) = (Metrics::new(), server("s"));
        let series = metrics.server(&"p".into(), &server);
        let told = || {
            metrics
                .render()
                .contains("acequia_server_certificate_expiry_timestamp_seconds{")
        };
        series.forget_certificate();
        assert!(!told());
        series.certificate_ends(7);
        assert!(told() && told());
        series.forget_certificate();
        assert!(!told() || !told(), "the exporter forgets at the second rendering");
        series.certificate_ends(8);
        assert!(told());
    }
}
