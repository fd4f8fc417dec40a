//! The registry of all series, and the text of those that the exporter (`metrics-exporter-prometheus`) does not keep.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::account::exposition::{GaugeFamily, MetricType, format_labels, write_header, write_sample};
use crate::account::series::{ListenerSeries, PathKey, PathSeries, PoolSeries, ServerSeries};
use crate::account::{Ending, names};
use crate::pool::{Pool, RefusedCheck};

/// How long counters are kept after their subject is gone. Prometheus looks back 5 minutes for a sample by default, so
/// no scraper needs them longer.
pub(super) const RETENTION: Duration = Duration::from_secs(300);

const SERVER_SESSIONS_ACTIVE_HELP: &str =
    "Current sessions of a server, including those still connecting, except those that the server has ended.";
const SERVER_UP_HELP: &str =
    "The same as acequia_server_healthy: whether a server answers its health checks, or has no checks.";
const SERVER_MAX_SESSIONS_HELP: &str = "The most sessions that a server may have at once, if that is limited.";
const POOL_QUEUE_HELP: &str = "Clients that wait in the queue of a pool.";
const HEALTH_CHECK_REFUSED_HELP: &str =
    "Whether a server refused its latest health check (it has too many connections, say), or this host prevented it.";
const SERVER_CERTIFICATE_EXPIRY_HELP: &str =
    "When the certificate shown at the latest passed health check expires, in seconds since the Unix epoch.";
const SERVER_CERTIFICATE_NOT_BEFORE_HELP: &str =
    "From when the certificate shown at the latest passed health check is valid, in seconds since the Unix epoch.";

/// All series by key.
#[derive(Clone, Default)]
pub(super) struct Registry {
    pub(super) listeners: HashMap<Arc<str>, Tracked<ListenerSeries>>,
    /// Sessions without a pool are counted under the empty name.
    pub(super) pools: HashMap<Arc<str>, Tracked<PoolSeries>>,
    /// By pool name and server label.
    pub(super) servers: HashMap<[Arc<str>; 2], Tracked<ServerSeries>>,
    /// A path is a listener with the pool and the server that were chosen for a session.
    pub(super) paths: HashMap<PathKey, Tracked<PathSeries>>,
}

/// Series, and since when their subject (listener, pool, server or path) is known to be gone.
pub(super) struct Tracked<T> {
    pub(super) series: Arc<T>,
    gone_since: Option<Instant>,
}

impl<T> Clone for Tracked<T> {
    fn clone(&self) -> Self {
        Self {
            series: Arc::clone(&self.series),
            gone_since: self.gone_since,
        }
    }
}

impl<T> Tracked<T> {
    fn new(series: T) -> Self {
        Self {
            series: Arc::new(series),
            gone_since: None,
        }
    }

    /// Records whether the subject exists; returns whether to keep the series.
    fn record_existence(&mut self, exists: bool, now: Instant) -> bool {
        if exists {
            self.gone_since = None;
            return true;
        }
        now < *self.gone_since.get_or_insert(now) + RETENTION
    }
}

/// Returns the series of a key; makes them if there are none.
pub(super) fn get_or_insert<K: Hash + Eq + Clone, V>(
    map: &mut HashMap<K, Tracked<V>>,
    key: &K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let tracked = map.entry(key.clone()).or_insert_with(|| Tracked::new(make()));
    Arc::clone(&tracked.series)
}

impl Registry {
    /// Finds out which subjects are gone, and removes the series of those that have been gone for [`RETENTION`].
    pub(super) fn remove_expired(&mut self, now: Instant) {
        self.paths.retain(|_, path| {
            let exists = !path.series.is_gone();
            path.record_existence(exists, now)
        });
        let paths = self.paths.iter().filter(|(_, path)| path.gone_since.is_none());
        let pools_with_paths: HashSet<Arc<str>> = paths.map(|(key, _)| Arc::clone(&key.pool)).collect();
        self.pools.retain(|name, pool| {
            let exists = pool.series.is_configured() || pools_with_paths.contains(name);
            pool.record_existence(exists, now)
        });
        self.servers.retain(|_, server| {
            let exists = !server.series.is_gone();
            server.record_existence(exists, now)
        });
        self.listeners.retain(|_, listener| {
            let exists = Arc::strong_count(&listener.series) > 1; // this map holds one
            listener.record_existence(exists, now)
        });
    }

    /// Hands the counters of listeners, servers and paths to the exporter. It does not keep those of pools.
    pub(super) fn export(&self) {
        self.listeners.values().for_each(|listener| listener.series.export());
        self.servers.values().for_each(|server| server.series.export());
        self.paths.values().for_each(|path| path.series.export());
    }

    /// Writes the gauges of listeners, of queues, and of servers: of the servers in `pools`, and of removed servers
    /// that still have sessions. `sessions`: the number of current sessions of each listener.
    pub(super) fn write_gauges<'a>(
        &self,
        sessions: impl IntoIterator<Item = (Arc<str>, usize)>,
        pools: impl IntoIterator<Item = &'a Pool>,
        text: &mut String,
    ) {
        write_listener_gauges(sessions, text);
        let mut active = GaugeFamily::new(names::SERVER_SESSIONS_ACTIVE, SERVER_SESSIONS_ACTIVE_HELP);
        let mut limits = GaugeFamily::new(names::SERVER_MAX_SESSIONS, SERVER_MAX_SESSIONS_HELP);
        let mut queues = GaugeFamily::new(names::POOL_QUEUE, POOL_QUEUE_HELP);
        let mut up = GaugeFamily::new(names::SERVER_UP, SERVER_UP_HELP);
        let mut refused = GaugeFamily::new(names::HEALTH_CHECK_REFUSED, HEALTH_CHECK_REFUSED_HELP);
        let mut expiries = GaugeFamily::new(names::SERVER_CERTIFICATE_EXPIRY, SERVER_CERTIFICATE_EXPIRY_HELP);
        let mut valid_from = GaugeFamily::new(names::SERVER_CERTIFICATE_NOT_BEFORE, SERVER_CERTIFICATE_NOT_BEFORE_HELP);
        let mut written = HashSet::new();
        for pool in pools {
            self.add_queue(pool, &mut queues);
            for server in pool.servers().iter() {
                let key = [pool.name(), &server.spec().label].map(Arc::clone);
                let labels = server_labels(&key);
                let series = self.servers.get(&key).map(|tracked| &tracked.series);
                if !written.insert(key) {
                    continue; // a series has only one sample
                }
                up.add(&labels, u8::from(server.is_healthy()));
                if series.is_some_and(|series| series.may_refuse_checks()) {
                    let is_refused = server.health().refusal != RefusedCheck::None;
                    refused.add(&labels, u8::from(is_refused));
                }
                // An older server with the same label may still have sessions.
                let of_others = series.map_or(0, |series| series.active_sessions(Some(server)));
                active.add(&labels, server.own_live() + of_others);
                if let Some(max) = server.sessions_max() {
                    limits.add(&labels, max);
                }
                if let Some([not_before, not_after]) = series.and_then(|series| series.certificate()) {
                    expiries.add(&labels, not_after);
                    valid_from.add(&labels, not_before);
                }
            }
        }
        // Servers that are no longer configured but still have sessions.
        for (key, server) in self.servers.iter().filter(|(key, _)| !written.contains(*key)) {
            let active_sessions = server.series.active_sessions(None);
            if active_sessions > 0 {
                active.add(&server_labels(key), active_sessions);
            }
        }
        for family in [active, limits, queues, up, refused, expiries, valid_from] {
            family.write(text);
        }
    }

    /// Adds how many clients wait in the queue of a pool, if it has a `queue` or clients wait.
    fn add_queue(&self, pool: &Pool, queues: &mut GaugeFamily) {
        if pool.rules().queue.is_none() && pool.queue_len() == 0 {
            return;
        }
        if let Some(tracked) = self.pools.get(pool.name()) {
            tracked.series.queue_wait(); // makes the histogram, so that it is shown before the first wait
        }
        queues.add(&format_labels(&[("pool", pool.name())]), pool.queue_len());
    }

    /// Writes, for each pool with a fallback, whether new sessions go to the fallback.
    pub(super) fn write_fallbacks(fallbacks: impl IntoIterator<Item = (Arc<str>, bool)>, text: &mut String) {
        let help = "Whether new sessions of a pool go to its fallback, because it has no usable server.";
        let values = fallbacks
            .into_iter()
            .map(|(pool, is_used)| (pool, usize::from(is_used)));
        write_pool_gauge(names::POOL_FALLBACK, help, values, text);
    }

    /// Writes, for each pool whose servers have roles, how many servers call themselves primary.
    pub(super) fn write_primaries(primaries: impl IntoIterator<Item = (Arc<str>, usize)>, text: &mut String) {
        let help = "Servers of a pool that call themselves primary at the same time; more than one needs an operator.";
        write_pool_gauge(names::POOL_PRIMARIES, help, primaries, text);
    }

    /// Writes the counters and histograms of pools.
    pub(super) fn write_pools(&self, text: &mut String) {
        let help = "Sessions that have ended, by pool and ending; the pool is empty if none was chosen.";
        write_header(text, names::POOL_SESSIONS, MetricType::Counter, help);
        for (name, pool) in &self.pools {
            for ending in Ending::ALL {
                let labels = format_labels(&[("pool", name), ("ending", ending.as_str())]);
                write_sample(text, names::POOL_SESSIONS, &labels, pool.series.totals.ended(*ending));
            }
        }
        let help = "Time from accept to the end of a session.";
        write_header(text, names::SESSION_DURATION, MetricType::Histogram, help);
        for (name, pool) in &self.pools {
            let labels = format_labels(&[("pool", name)]);
            let histogram = &pool.series.session_duration;
            histogram.write(names::SESSION_DURATION, &labels, text);
        }
        let mut waits = self
            .pools
            .iter()
            .filter_map(|(name, pool)| Some((name, pool.series.queue_wait_if_any()?)))
            .peekable();
        if waits.peek().is_some() {
            let help = "Time that sessions have waited in the queue of a pool, whether they got a server or not.";
            write_header(text, names::QUEUE_WAIT, MetricType::Histogram, help);
        }
        for (name, histogram) in waits {
            histogram.write(names::QUEUE_WAIT, &format_labels(&[("pool", name)]), text);
        }
    }

    /// Writes the counters of routes.
    pub(super) fn write_routes(&self, text: &mut String) {
        let listeners = self
            .listeners
            .iter()
            .map(|(name, listener)| (name, listener.series.routes()));
        let mut with_routes = listeners.filter(|(_, routes)| !routes.is_empty()).peekable();
        if with_routes.peek().is_some() {
            let help = "Sessions that a route has taken, or refused.";
            write_header(text, names::ROUTE_SESSIONS, MetricType::Counter, help);
        }
        for (listener, routes) in with_routes {
            for route in &*routes {
                let labels = format_labels(&[("listener", listener), ("route", &route.name)]);
                write_sample(text, names::ROUTE_SESSIONS, &labels, route.total());
            }
        }
    }

    /// Writes the durations of reading ClientHellos, of TLS handshakes, of connects and of health checks.
    pub(super) fn write_durations(&self, text: &mut String) {
        let help =
            "Time from accept until the ClientHello, or what else decides the route, was read, or reading failed.";
        write_header(text, names::HELLO_DURATION, MetricType::Histogram, help);
        for (name, listener) in &self.listeners {
            let labels = format_labels(&[("listener", name)]);
            let histogram = &listener.series.hello_duration;
            histogram.write(names::HELLO_DURATION, &labels, text);
        }
        let mut tls = self
            .listeners
            .iter()
            .filter_map(|(name, listener)| Some((name, listener.series.tls()?)))
            .peekable();
        if tls.peek().is_some() {
            let help = "Duration of TLS handshakes with clients, from the ClientHello on, complete or not.";
            write_header(text, names::TLS_HANDSHAKE_DURATION, MetricType::Histogram, help);
        }
        for (name, series) in tls {
            let labels = format_labels(&[("listener", name)]);
            series
                .handshake_duration
                .write(names::TLS_HANDSHAKE_DURATION, &labels, text);
        }
        let help = "Duration of successful connects to a server.";
        write_header(text, names::CONNECT_DURATION, MetricType::Histogram, help);
        for (key, server) in &self.servers {
            let histogram = &server.series.connect_duration;
            histogram.write(names::CONNECT_DURATION, &server_labels(key), text);
        }
        let help = "Duration of health checks of a server, whatever their result.";
        write_header(text, names::HEALTH_CHECK_DURATION, MetricType::Histogram, help);
        let checked = |(_, server): &(_, &Tracked<ServerSeries>)| !server.series.check_duration.is_empty();
        for (key, server) in self.servers.iter().filter(checked) {
            let histogram = &server.series.check_duration;
            histogram.write(names::HEALTH_CHECK_DURATION, &server_labels(key), text);
        }
    }
}

fn server_labels([pool, server]: &[Arc<str>; 2]) -> String {
    format_labels(&[("pool", pool), ("server", server)])
}

fn write_listener_gauges(sessions: impl IntoIterator<Item = (Arc<str>, usize)>, text: &mut String) {
    let help = "Current sessions of a listener.";
    write_header(text, names::SESSIONS_ACTIVE, MetricType::Gauge, help);
    for (name, active) in sessions {
        let labels = format_labels(&[("listener", &name)]);
        write_sample(text, names::SESSIONS_ACTIVE, &labels, active);
    }
}

fn write_pool_gauge(
    name: &'static str,
    help: &'static str,
    values: impl IntoIterator<Item = (Arc<str>, usize)>,
    text: &mut String,
) {
    let mut family = GaugeFamily::new(name, help);
    for (pool, value) in values {
        family.add(&format_labels(&[("pool", &pool)]), value);
    }
    family.write(text);
}
