//! The series of listeners, servers and lines: handles that are resolved once and kept, so that nothing on the data
//! path looks a metric up by name.

mod pool;
mod server;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use metrics::{Counter, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::PrometheusRecorder;
use tokio::time::Instant;

use super::episode::Episode;
use super::histogram::{HANDSHAKE_BOUNDS, Histogram};
use super::{Ending, names};
use crate::listen::AcceptPause;
use crate::pool::Server;
pub(super) use pool::PoolSeries;
pub use server::{CheckResult, ServerSeries};

/// Where handles come from.
pub(super) type Source = Arc<PrometheusRecorder>;

pub(super) const METADATA: Metadata<'static> = Metadata::new("acequia", Level::INFO, None);

pub(super) fn label(key: &'static str, value: &Arc<str>) -> Label {
    Label::new(key, SharedString::from(Arc::clone(value)))
}

fn counter(source: &Source, name: &'static str, labels: Vec<Label>) -> Counter {
    source.register_counter(&Key::from_parts(name, labels), &METADATA)
}

/// Counters of one name that differ in one label. Each is made when first needed: most servers never fail in most
/// ways, and most endings never happen on most lines.
struct Counters<const N: usize> {
    source: Source,
    name: &'static str,
    labels: Vec<Label>,
    key: &'static str,
    slots: [OnceLock<Counter>; N],
}

impl<const N: usize> Counters<N> {
    fn new(source: &Source, name: &'static str, labels: &[Label], key: &'static str) -> Self {
        let slots = [const { OnceLock::new() }; N];
        Self {
            source: Arc::clone(source),
            name,
            labels: labels.to_vec(),
            key,
            slots,
        }
    }

    fn of(&self, slot: usize, word: &'static str) -> &Counter {
        self.slots[slot].get_or_init(|| {
            let mut labels = self.labels.clone();
            labels.push(Label::from_static_parts(self.key, word));
            counter(&self.source, self.name, labels)
        })
    }

    fn touch(&self) {
        self.slots
            .iter()
            .filter_map(OnceLock::get)
            .for_each(|counter| counter.increment(0));
    }
}

/// A number no other listener's series of this process ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

/// The series of a listener.
pub struct ListenerSeries {
    id: ListenerId,
    name: Arc<str>,
    connections: Counter,
    pauses: Counters<{ AcceptPause::ALL.len() }>,
    /// Whether there is an episode of pauses, to be asked without its lock.
    is_pausing: AtomicBool,
    // A std mutex: a few lines, and only while accepting pauses.
    episode: Mutex<Episode>,
    pub(super) hello: Histogram,
}

impl std::fmt::Debug for ListenerSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerSeries")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ListenerSeries {
    pub(super) fn new(source: &Source, name: &Arc<str>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let labels = [label("listener", name)];
        Self {
            id: ListenerId(NEXT.fetch_add(1, Relaxed)),
            name: Arc::clone(name),
            connections: counter(source, names::CONNECTIONS, labels.to_vec()),
            pauses: Counters::new(source, names::ACCEPT_PAUSES, &labels, "reason"),
            is_pausing: AtomicBool::new(false),
            episode: Mutex::default(),
            hello: Histogram::new(HANDSHAKE_BOUNDS),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ListenerId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A client was let in.
    pub fn accepted(&self) {
        self.connections.increment(1);
        if self.is_pausing.load(Relaxed) {
            self.episode().accepted();
        }
    }

    /// Accepting rests; whether that is news.
    pub fn paused(&self, reason: AcceptPause) -> bool {
        self.pauses.of(reason as usize, reason.as_str()).increment(1);
        let mut episode = self.episode();
        self.is_pausing.store(true, Relaxed);
        episode.paused(Instant::now())
    }

    /// Whether accepting goes on as if it had never paused; said once. To be asked now and then.
    #[must_use]
    pub fn is_calm_again(&self) -> bool {
        if !self.is_pausing.load(Relaxed) {
            return false;
        }
        let mut episode = self.episode();
        let calm = episode.is_over(Instant::now());
        self.is_pausing.store(!calm, Relaxed); // under the lock, like where it is set
        calm
    }

    fn episode(&self) -> MutexGuard<'_, Episode> {
        self.episode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finding out what a client wants took so long.
    pub fn heard(&self, took: Duration) {
        self.hello.record(took);
    }

    pub(super) fn touch(&self) {
        self.connections.increment(0);
        self.pauses.touch();
    }
}

/// The series of sessions that went one way: a listener, the pool and the server chosen, as far as any were.
pub struct LineSeries {
    up: Counter,
    down: Counter,
    endings: Counters<{ Ending::ALL.len() }>,
    pool: Arc<PoolSeries>,
    listener: Weak<ListenerSeries>,
    server: Option<(Weak<Server>, Arc<ServerSeries>)>,
}

impl LineSeries {
    pub(super) fn new(
        source: &Source,
        labels: &[Label],
        pool: Arc<PoolSeries>,
        listener: &Arc<ListenerSeries>,
        server: Option<(Weak<Server>, Arc<ServerSeries>)>,
    ) -> Self {
        let bytes = Counters::<2>::new(source, names::BYTES, labels, "direction");
        Self {
            up: bytes.of(0, "up").clone(),
            down: bytes.of(1, "down").clone(),
            endings: Counters::new(source, names::SESSIONS, labels, "ending"),
            pool,
            listener: Arc::downgrade(listener),
            server,
        }
    }

    /// The server's own series; `None` where none was chosen.
    #[must_use]
    pub fn server(&self) -> Option<&ServerSeries> {
        self.server.as_ref().map(|(_, series)| &**series)
    }

    /// So many bytes were read since this was last told.
    pub fn moved(&self, up: u64, down: u64) {
        if up > 0 {
            self.up.increment(up);
        }
        if down > 0 {
            self.down.increment(down);
        }
    }

    /// A session is over.
    pub fn ended(&self, ending: Ending, took: Duration) {
        self.endings.of(ending as usize, ending.as_str()).increment(1);
        self.pool.ended(ending, took);
    }

    /// Whether no session will come this way again: the server or the listener is gone, or, of those that reached no
    /// server, the pool.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let is_without_server = match &self.server {
            Some((server, _)) => server.strong_count() == 0,
            None => !self.pool.is_configured(),
        };
        // One that nobody but the book holds is gone.
        is_without_server || self.listener.strong_count() <= 1
    }

    pub(super) fn touch(&self) {
        self.up.increment(0);
        self.down.increment(0);
        self.endings.touch();
    }
}
