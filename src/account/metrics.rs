//! All series of the process, and their text for `/metrics`.
//!
//! Counters of what has left stay for five minutes, so that every scraper sees their last values, also where several scrape
//! independently. The exporter can only forget counters that nobody has touched for a while; so every counter still
//! wanted is touched before each rendering, and the while is as short as can be. Gauges of listeners and servers are not
//! kept at all: they are written from what there is at that moment, and so leave at once. Nor are the series of pools
//! kept by the exporter: each pool has one for every ending.

mod book;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::{Counter, Gauge, Key, Label, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use book::{Book, opened};

use super::names;
use super::series::{LineSeries, ListenerId, ListenerSeries, METADATA, PoolSeries, ServerSeries, Source, label};
use crate::pool::{Pool, Server, ServerId};

/// How often it is looked for what has left when nobody asks for the text. A rendering takes milliseconds where there
/// are thousands of series.
const TENDING: Duration = Duration::from_secs(60);

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

impl Metrics {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
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
            reloads: ["ok", "error"].map(|result| {
                let labels = vec![Label::from_static_parts("result", result)];
                recorder.register_counter(&Key::from_parts(names::CONFIG_RELOADS, labels), &METADATA)
            }),
            last_reload: recorder.register_gauge(&Key::from_name(names::CONFIG_LAST_RELOAD), &METADATA),
            put_in_force: AtomicU64::new(seconds_since_the_epoch()),
            handle: recorder.handle(),
            source: Arc::new(recorder),
            process,
            book: Mutex::default(),
            rendering: Mutex::default(),
        };
        metrics.configure_pools([]);
        metrics
    }

    /// The series of a listener, opened if need be. What they count goes on if the listener is back before its counters
    /// have left.
    pub fn listener(&self, name: &Arc<str>) -> Arc<ListenerSeries> {
        opened(&mut self.book().listeners, name, || {
            ListenerSeries::new(&self.source, name)
        })
    }

    /// The listeners there are, in no order, and those whose counters are still shown.
    #[must_use]
    pub fn listeners(&self) -> Vec<Arc<ListenerSeries>> {
        let book = self.book();
        book.listeners.values().map(|shown| Arc::clone(&shown.series)).collect()
    }

    /// These pools are configured and no others. Each has all of its series from then on; those of others leave once
    /// their last session has ended.
    pub fn configure_pools<'a>(&self, names: impl IntoIterator<Item = &'a Arc<str>>) {
        let mut book = self.book();
        book.pools.values().for_each(|pool| pool.series.set_configured(false));
        let no_pool = Arc::from("");
        opened(&mut book.pools, &no_pool, PoolSeries::new).set_configured(true);
        for name in names {
            opened(&mut book.pools, name, PoolSeries::new).set_configured(true);
        }
    }

    /// The series of a server, opened if need be.
    pub fn server(&self, pool: &Arc<str>, server: &Arc<Server>) -> Arc<ServerSeries> {
        let name = [pool, &server.spec().label].map(Arc::clone);
        let series = opened(&mut self.book().servers, &name, || {
            let [pool, server] = &name;
            ServerSeries::new(&self.source, &[label("pool", pool), label("server", server)])
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
        let pool = opened(&mut book.pools, &key.pool, PoolSeries::new);
        if book.lines.get(key).is_some_and(|line| line.series.is_over()) {
            book.lines.remove(key);
        }
        opened(&mut book.lines, key, || {
            LineSeries::new(&self.source, &labels, pool, listener, server_series)
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

    /// The text of the exposition format. `sessions`: those of each listener now; `pools`: those in force.
    #[must_use]
    pub fn render<'a>(
        &self,
        sessions: impl IntoIterator<Item = (Arc<str>, usize)>,
        pools: impl IntoIterator<Item = &'a Pool>,
    ) -> String {
        let _one_step = self.rendering.lock().unwrap_or_else(PoisonError::into_inner);
        metrics::with_local_recorder(&*self.source, || self.process.collect());
        self.build_info.set(1.0);
        self.lines_dropped.increment(0);
        self.reloads.iter().for_each(|reloads| reloads.increment(0));
        self.last_reload.set(self.put_in_force.load(Relaxed) as f64);
        let mut book = self.book();
        book.tidy(Instant::now());
        book.touch();
        let mut own = String::new();
        book.write_gauges(sessions, pools, &mut own);
        book.write_pools(&mut own);
        book.write_handshakes(&mut own);
        drop(book);
        // The exporter's counters are whole numbers, and this is a fraction; what it is called, it is.
        let exported = self.handle.render().replacen(
            "# TYPE process_cpu_seconds_total gauge",
            "# TYPE process_cpu_seconds_total counter",
            1,
        );
        exported + &own
    }

    /// Forgets counters of what has left, for as long as it is polled, whether or not anybody asks for the text. The
    /// exporter forgets only while it renders, and only at the second rendering what the first found changed.
    pub async fn tend(self: Arc<Self>) {
        loop {
            sleep(TENDING).await;
            let metrics = Arc::clone(&self);
            let _ = spawn_blocking(move || drop(metrics.render([], []))).await; // a panic in it has been told
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

#[cfg(test)]
mod tests;
