//! Most metrics of the process, and their text for `/metrics`. The handler of `/metrics` adds the others.
//!
//! The counters of a listener, pool, server or path that is gone are kept for five minutes, so that every scraper sees
//! their last values, even if several scrape independently. The exporter, `metrics-exporter-prometheus`, drops a
//! counter that was not incremented since the last rendering. An increment by 0 counts, too, so each rendering first
//! exports all counters that are to be kept. The exporter does not hold all metrics: each rendering writes the gauges
//! of listeners and servers from the current state, and the series of pools from the registry. A pool has a series for
//! every ending from the start, so that `increase()` sees the first event.

mod registry;
mod certificates;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use metrics::{Counter, Gauge, Key, Label, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_util::MetricKindMask;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

pub use certificates::{acme_renewals, certificate_validity};
use registry::{Registry, get_or_insert};

use super::guard_samples::write_guards;
use super::histogram::DurationCounts;
use super::names;
use super::series::{ListenerSeries, METADATA, PathKey, PathSeries, PoolSeries, ServerSeries, SharedRecorder, label};
use super::totals::TotalCounts;
use crate::dial::ConnectFailure;
use crate::guard::Guard;
use crate::pool::{Pool, Server};

/// How often expired series are removed if nobody scrapes. Not more often: a rendering of thousands of series takes
/// milliseconds.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Most metrics of the process: those that [`Self::render`] writes.
pub struct Metrics {
    recorder: SharedRecorder,
    handle: PrometheusHandle,
    process: metrics_process::Collector,
    build_info: Gauge,
    lines_dropped: Counter,
    /// Successful and failed reloads.
    reloads: [Counter; 2],
    /// Successful and failed reloads of changed TLS files.
    certificate_reloads: [Counter; 2],
    last_reload: Gauge,
    /// When the configuration in force was loaded, in seconds since the Unix epoch.
    configured_at: AtomicU64,
    // Blocking mutexes. A worker locks the registry when it sees a path (listener, pool and server) for the first time,
    // so a scrape locks it only to expire series and to copy them.
    registry: Mutex<Registry>,
    /// Makes exporting and rendering one step: a second rendering between the two would leave no counters to the first.
    rendering: Mutex<()>,
}

impl Metrics {
    /// Creates the metrics of the process, without any listener, pool or server.
    #[must_use]
    pub fn new() -> Self {
        // A timeout of 1 ns: the exporter drops every counter that was not incremented since the last rendering.
        let recorder = PrometheusBuilder::new()
            .idle_timeout(MetricKindMask::COUNTER, Some(Duration::from_nanos(1)))
            .build_recorder();
        for (name, help) in names::COUNTERS {
            recorder.describe_counter((*name).into(), None, (*help).into());
        }
        for (name, help) in names::GAUGES {
            recorder.describe_gauge((*name).into(), None, (*help).into());
        }
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(&recorder, || process.describe());
        let version = vec![Label::from_static_parts("version", env!("CARGO_PKG_VERSION"))];
        let metrics = Self {
            build_info: recorder.register_gauge(&Key::from_parts(names::BUILD_INFO, version), &METADATA),
            lines_dropped: recorder.register_counter(&Key::from_name(names::LOG_LINES_DROPPED), &METADATA),
            reloads: by_result(&recorder, names::CONFIG_RELOADS),
            certificate_reloads: by_result(&recorder, names::CERTIFICATE_RELOADS),
            last_reload: recorder.register_gauge(&Key::from_name(names::CONFIG_LAST_RELOAD), &METADATA),
            configured_at: AtomicU64::new(unix_seconds()),
            handle: recorder.handle(),
            recorder: Arc::new(recorder),
            process,
            registry: Mutex::default(),
            rendering: Mutex::default(),
        };
        metrics.configure_pools([]); // makes the series of sessions without a pool
        metrics
    }

    /// Returns the series of a listener; registers them if there are none. A listener that comes back
    /// within the retention time continues its counters.
    pub fn listener(&self, name: &Arc<str>) -> Arc<ListenerSeries> {
        get_or_insert(&mut self.registry.lock().listeners, name, || {
            ListenerSeries::new(&self.recorder, name)
        })
    }

    /// All registered listeners, in no particular order, including removed ones within the retention time.
    #[must_use]
    pub fn listeners(&self) -> Vec<Arc<ListenerSeries>> {
        let registry = self.registry.lock();
        registry
            .listeners
            .values()
            .map(|tracked| Arc::clone(&tracked.series))
            .collect()
    }

    /// Sets which pools are configured. Each of them has all its series from now on; the series of other pools expire
    /// after their last session has ended.
    pub fn configure_pools<'a>(&self, names: impl IntoIterator<Item = &'a Arc<str>>) {
        let mut registry = self.registry.lock();
        let pools = registry.pools.values();
        pools.for_each(|pool| pool.series.publish_configured(false));
        let no_pool = Arc::from(""); // the label of sessions that were not routed to a pool
        get_or_insert(&mut registry.pools, &no_pool, PoolSeries::new).publish_configured(true);
        for name in names {
            get_or_insert(&mut registry.pools, name, PoolSeries::new).publish_configured(true);
        }
    }

    /// The totals of the sessions of these pools since the start; `None` for a pool without series.
    pub fn pool_counts<'a>(&self, pools: impl IntoIterator<Item = &'a Arc<str>>) -> Vec<Option<TotalCounts>> {
        let registry = self.registry.lock();
        let counts = |name| registry.pools.get(name).map(|pool| pool.series.totals.counts());
        pools.into_iter().map(counts).collect()
    }

    /// Successful connects to a server of a pool since the start, by duration; `None`: the server has no series.
    #[must_use]
    pub fn connects(&self, pool: &Arc<str>, server: &Arc<str>) -> Option<DurationCounts> {
        let key = [pool, server].map(Arc::clone);
        let registry = self.registry.lock();
        registry
            .servers
            .get(&key)
            .map(|server| server.series.connect_duration.counts())
    }

    /// Failed attempts to connect to a server of a pool since the start, by reason. Reasons that did not occur are left
    /// out.
    #[must_use]
    pub fn failed_connects(&self, pool: &Arc<str>, server: &Arc<str>) -> Vec<(ConnectFailure, u64)> {
        let key = [pool, server].map(Arc::clone);
        let registry = self.registry.lock();
        let server = registry.servers.get(&key);
        server
            .into_iter()
            .flat_map(|server| server.series.failed_connects())
            .collect()
    }

    /// Returns the series of a server of the pool `pool`; registers them if there are none.
    pub fn server(&self, pool: &Arc<str>, server: &Arc<Server>) -> Arc<ServerSeries> {
        let key = [pool, &server.spec().label].map(Arc::clone);
        let mut registry = self.registry.lock();
        let series = get_or_insert(&mut registry.servers, &key, || {
            let [pool, server] = &key;
            ServerSeries::new(&self.recorder, &[label("pool", pool), label("server", server)])
        });
        // While the registry is locked: otherwise, series whose servers are gone might expire before they are used
        // again.
        series.add_server(server);
        series
    }

    /// Returns the series of a path; registers them if there are none. `listener` and `server` are those of the key.
    pub fn path(&self, key: &PathKey, listener: &Arc<ListenerSeries>, server: Option<&Arc<Server>>) -> Arc<PathSeries> {
        // Before the registry is locked below: `self.server` locks it, too.
        let server_series = server.map(|server| (Arc::downgrade(server), self.server(&key.pool, server)));
        let mut registry = self.registry.lock();
        let labels = [
            label("listener", listener.name()),
            label("pool", &key.pool),
            label(
                "server",
                &server.map_or_else(|| Arc::from(""), |server| Arc::clone(&server.spec().label)),
            ),
        ];
        let pool = get_or_insert(&mut registry.pools, &key.pool, PoolSeries::new);
        // The series of a path that is gone may refer to series of the pool that have expired since.
        if registry.paths.get(key).is_some_and(|path| path.series.is_gone()) {
            registry.paths.remove(key);
        }
        get_or_insert(&mut registry.paths, key, || {
            PathSeries::new(&self.recorder, &labels, pool, listener, server_series)
        })
    }

    /// Counts a reload. After a successful one, the configuration in force dates from now.
    pub fn record_reload(&self, is_ok: bool) {
        self.reloads[usize::from(!is_ok)].increment(1);
        if is_ok {
            self.configured_at.store(unix_seconds(), Relaxed);
        }
    }

    /// When the configuration in force was loaded, to the second.
    #[must_use]
    pub fn configured_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.configured_at.load(Relaxed))
    }

    /// Counts a reload of the TLS files of a listener, a pool or the admin port after they changed.
    pub fn record_certificate_reload(&self, is_ok: bool) {
        self.certificate_reloads[usize::from(!is_ok)].increment(1);
    }

    /// The counter of access log lines that could not be written.
    pub fn lines_dropped(&self) -> Counter {
        self.lines_dropped.clone()
    }

    /// Renders these metrics in the text exposition format. `sessions`: the current sessions of each listener, by its
    /// name. `pools`: the configured pools. `fallbacks`: the pools that have a fallback, and whether it is in use.
    /// `primaries`: the pools whose servers have roles, and how many servers call themselves primary. `guards`: the
    /// guards in force.
    #[must_use]
    pub fn render<'a>(
        &self,
        sessions: impl IntoIterator<Item = (Arc<str>, usize)>,
        pools: impl IntoIterator<Item = &'a Pool>,
        fallbacks: impl IntoIterator<Item = (Arc<str>, bool)>,
        primaries: impl IntoIterator<Item = (Arc<str>, usize)>,
        guards: &[Arc<Guard>],
    ) -> String {
        let _rendering = self.rendering.lock();
        metrics::with_local_recorder(&*self.recorder, || self.process.collect());
        self.build_info.set(1.0);
        self.lines_dropped.increment(0);
        let counters = self.reloads.iter().chain(&self.certificate_reloads);
        counters.for_each(|counter| counter.increment(0));
        self.last_reload.set(self.configured_at.load(Relaxed) as f64);
        let registry = {
            let mut registry = self.registry.lock();
            registry.remove_expired(Instant::now());
            registry.clone()
        };
        let mut own = String::new();
        registry.write_gauges(sessions, pools, &mut own);
        Registry::write_fallbacks(fallbacks, &mut own);
        Registry::write_primaries(primaries, &mut own);
        registry.write_pools(&mut own);
        registry.write_durations(&mut own);
        registry.write_routes(&mut own);
        write_guards(guards, &mut own);
        // The counters by path are exported after the sums by pool are written. Each session is counted by path first,
        // so the sum of a pool is never larger than the sum of its counters by path.
        registry.export();
        // The CPU time is fractional, which the exporter supports in gauges only; but it is a counter.
        let exported = self.handle.render().replacen(
            "# TYPE process_cpu_seconds_total gauge",
            "# TYPE process_cpu_seconds_total counter",
            1,
        );
        exported + &own
    }

    /// Removes expired series every minute, so that they do not pile up if nobody scrapes; runs until the future is
    /// dropped. It does so by rendering, because the exporter forgets counters only then: a counter that has changed is
    /// forgotten at the second rendering after the change.
    pub async fn run_upkeep(self: Arc<Self>) {
        loop {
            sleep(UPKEEP_INTERVAL).await;
            let metrics = Arc::clone(&self);
            // An error is a panic, which was logged.
            let _ = spawn_blocking(move || drop(metrics.render([], [], [], [], &[]))).await;
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A counter for success and one for failure.
fn by_result(recorder: &PrometheusRecorder, name: &'static str) -> [Counter; 2] {
    ["ok", "error"].map(|result| {
        let labels = vec![Label::from_static_parts("result", result)];
        recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
    })
}

fn unix_seconds() -> u64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests;
