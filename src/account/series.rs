//! The series of listeners, servers and lines: handles that are resolved once and kept, so that nothing on the data
//! path looks a metric up by name.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::PrometheusRecorder;
use tokio::time::Instant;

use super::Ending;
use super::episode::Episode;
use super::histogram::{HANDSHAKE_BOUNDS, Histogram};
use super::metrics::names;
use crate::dial::ConnectFailure;
use crate::listen::{Pause, Places};
use crate::pool::Server;

/// Where handles come from.
pub(super) type Source = Arc<PrometheusRecorder>;

pub(super) const METADATA: Metadata<'static> = Metadata::new("acequia", Level::INFO, None);

pub(super) fn label(key: &'static str, value: &Arc<str>) -> Label {
    Label::new(key, SharedString::from(Arc::clone(value)))
}

fn counter(source: &Source, name: &'static str, labels: Vec<Label>) -> Counter {
    source.register_counter(&Key::from_parts(name, labels), &METADATA)
}

fn gauge(source: &Source, name: &'static str, labels: &[Label]) -> Gauge {
    source.register_gauge(&Key::from_parts(name, labels.to_vec()), &METADATA)
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
    places: Places,
    connections: Counter,
    active: Gauge,
    pauses: Counters<{ Pause::ALL.len() }>,
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
    pub(super) fn new(source: &Source, name: &Arc<str>, places: Places) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let labels = [label("listener", name)];
        Self {
            id: ListenerId(NEXT.fetch_add(1, Relaxed)),
            name: Arc::clone(name),
            places,
            connections: counter(source, names::CONNECTIONS, labels.to_vec()),
            active: gauge(source, names::SESSIONS_ACTIVE, &labels),
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

    /// The places of its sessions.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
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
    pub fn paused(&self, reason: Pause) -> bool {
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

    pub(super) fn show(&self) {
        self.connections.increment(0);
        self.active.set(self.places.taken() as f64);
        self.pauses.touch();
    }
}

/// What came of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// Good.
    Pass,
    /// Bad.
    Fail,
    /// No answer in time.
    Timeout,
}

impl CheckResult {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Fail, Self::Timeout];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Timeout => "timeout",
        }
    }
}

/// The series of a server, or of all that are called so: one that was given another address is another server, while
/// sessions still go to the one before.
pub struct ServerSeries {
    // Std mutexes: for a line or two, when a server is met for the first time, at a check, when somebody looks.
    /// One; two while the one before it has sessions.
    servers: Mutex<Vec<Weak<Server>>>,
    source: Source,
    pub(super) labels: [Label; 2],
    up: Gauge,
    active: Gauge,
    /// When the certificate ends that it showed last; most servers never show one.
    certificate: Mutex<Option<(Gauge, i64)>>,
    pub(super) connect: Histogram,
    failures: Counters<{ ConnectFailure::ALL.len() }>,
    checks: Counters<{ CheckResult::ALL.len() }>,
    transitions: Counters<2>,
}

impl ServerSeries {
    pub(super) fn new(source: &Source, labels: [Label; 2]) -> Self {
        Self {
            servers: Mutex::default(),
            source: Arc::clone(source),
            up: gauge(source, names::SERVER_UP, &labels),
            active: gauge(source, names::SERVER_SESSIONS_ACTIVE, &labels),
            certificate: Mutex::default(),
            connect: Histogram::new(HANDSHAKE_BOUNDS),
            failures: Counters::new(source, names::CONNECT_FAILURES, &labels, "reason"),
            checks: Counters::new(source, names::HEALTH_CHECKS, &labels, "result"),
            transitions: Counters::new(source, names::HEALTH_TRANSITIONS, &labels, "to"),
            labels,
        }
    }

    /// An attempt to connect took so long, and failed or not.
    pub fn dialled(&self, took: Duration, failure: Option<ConnectFailure>) {
        match failure {
            None => self.connect.record(took),
            Some(failure) => self.failures.of(failure as usize, failure.as_str()).increment(1),
        }
    }

    /// A check has a result.
    pub fn checked(&self, result: CheckResult) {
        self.checks.of(result as usize, result.as_str()).increment(1);
    }

    /// Its certificate ends then, in seconds since the epoch.
    pub fn certificate_ends(&self, at: i64) {
        let mut certificate = self.certificate();
        let gauge = || gauge(&self.source, names::CERTIFICATE_EXPIRY, &self.labels);
        certificate.get_or_insert_with(|| (gauge(), at)).1 = at;
    }

    /// Nobody looks at its certificate any more.
    pub fn forget_certificate(&self) {
        *self.certificate() = None;
    }

    /// It went up or down.
    pub fn changed(&self, is_up: bool) {
        self.transitions
            .of(usize::from(is_up), if is_up { "up" } else { "down" })
            .increment(1);
    }

    /// From now on this server's too.
    pub(super) fn take_in(&self, server: &Arc<Server>) {
        let mut servers = self.servers();
        servers.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(server));
        servers.push(Arc::downgrade(server));
    }

    /// Whether nobody holds a server of this name any more: neither a pool nor a session.
    pub(super) fn is_over(&self) -> bool {
        self.servers().iter().all(|server| server.strong_count() == 0)
    }

    fn certificate(&self) -> MutexGuard<'_, Option<(Gauge, i64)>> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Weak<Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn show(&self) {
        let servers: Vec<_> = self.servers().iter().filter_map(Weak::upgrade).collect();
        // Those before it are in no pool any more.
        let Some(newest) = servers.iter().max_by_key(|server| server.id()) else {
            return;
        };
        self.up.set(f64::from(u8::from(newest.is_up())));
        let active: u32 = servers.iter().map(|server| server.live()).sum();
        self.active.set(f64::from(active));
        if let Some((gauge, end)) = &*self.certificate() {
            gauge.set(*end as f64);
        }
        self.failures.touch();
        self.checks.touch();
        self.transitions.touch();
    }
}

/// The series of sessions that went one way: a listener, the pool and the server chosen, as far as any were.
pub struct LineSeries {
    up: Counter,
    down: Counter,
    endings: Counters<{ Ending::ALL.len() }>,
    duration: Arc<Histogram>,
    listener: Weak<ListenerSeries>,
    server: Option<(Weak<Server>, Arc<ServerSeries>)>,
    is_retired: AtomicBool,
}

impl LineSeries {
    pub(super) fn new(
        source: &Source,
        labels: &[Label],
        duration: Arc<Histogram>,
        listener: &Arc<ListenerSeries>,
        server: Option<(Weak<Server>, Arc<ServerSeries>)>,
    ) -> Self {
        let bytes = Counters::<2>::new(source, names::BYTES, labels, "direction");
        Self {
            up: bytes.of(0, "up").clone(),
            down: bytes.of(1, "down").clone(),
            endings: Counters::new(source, names::SESSIONS, labels, "ending"),
            duration,
            listener: Arc::downgrade(listener),
            server,
            is_retired: AtomicBool::new(false),
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
        self.duration.record(took);
    }

    /// Its pool is configured no more.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Relaxed);
    }

    /// Whether no session will come this way again: the server or the listener is gone, or, of those that reached no
    /// server, the pool.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let is_without_server = match &self.server {
            Some((server, _)) => server.strong_count() == 0,
            None => self.is_retired.load(Relaxed),
        };
        is_without_server || self.listener.strong_count() == 0
    }

    pub(super) fn show(&self) {
        self.up.increment(0);
        self.down.increment(0);
        self.endings.touch();
    }
}
