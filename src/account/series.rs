//! The series of listeners, servers and lines: handles that are resolved once and kept, so that nothing on the data
//! path looks a metric up by name.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::PrometheusRecorder;
use tokio::time::Instant;

use super::Ending;
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

/// When for so long nobody had to wait, a crowd is over.
const CALM: Duration = Duration::from_secs(1);

/// The series of a listener.
pub struct ListenerSeries {
    name: Arc<str>,
    places: Places,
    connections: Counter,
    active: Gauge,
    pauses: Counters<{ Pause::ALL.len() }>,
    /// Whether there is a crowd: clients have to wait for want of something. Said once, however many they are.
    is_pausing: AtomicBool,
    /// When one last had to; a std mutex, for nobody asks while there is no crowd.
    waited_at: Mutex<Instant>,
    pub(super) hello: Histogram,
}

impl ListenerSeries {
    pub(super) fn new(source: &Source, name: &Arc<str>, places: Places) -> Self {
        let labels = [label("listener", name)];
        Self {
            name: Arc::clone(name),
            places,
            connections: counter(source, names::CONNECTIONS, labels.to_vec()),
            active: gauge(source, names::SESSIONS_ACTIVE, &labels),
            pauses: Counters::new(source, names::ACCEPT_PAUSES, &labels, "reason"),
            is_pausing: AtomicBool::new(false),
            waited_at: Mutex::new(Instant::now()),
            hello: Histogram::new(HANDSHAKE_BOUNDS),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A client was let in, `at_once` or when it had waited; whether that shows the crowd to be over. A place that one
    /// leaves to the next does not.
    pub fn accepted(&self, at_once: bool) -> bool {
        self.connections.increment(1);
        if !self.is_pausing.load(Relaxed) {
            return false;
        }
        let mut waited_at = self.waited_at.lock().unwrap_or_else(PoisonError::into_inner);
        if !at_once {
            *waited_at = Instant::now();
        }
        waited_at.elapsed() >= CALM && self.is_pausing.swap(false, Relaxed)
    }

    /// Accepting rests; whether that is news.
    pub fn paused(&self, reason: Pause) -> bool {
        self.pauses.of(reason as usize, reason.as_str()).increment(1);
        *self.waited_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        !self.is_pausing.swap(true, Relaxed)
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

/// The series of a server.
pub struct ServerSeries {
    server: Weak<Server>,
    pub(super) labels: [Label; 2],
    up: Gauge,
    active: Gauge,
    pub(super) connect: Histogram,
    failures: Counters<{ ConnectFailure::ALL.len() }>,
    checks: Counters<{ CheckResult::ALL.len() }>,
    transitions: Counters<2>,
}

impl ServerSeries {
    pub(super) fn new(source: &Source, pool: &Arc<str>, server: &Arc<Server>) -> Self {
        let labels = [label("pool", pool), label("server", &server.spec().label)];
        Self {
            server: Arc::downgrade(server),
            up: gauge(source, names::SERVER_UP, &labels),
            active: gauge(source, names::SERVER_SESSIONS_ACTIVE, &labels),
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

    /// It went up or down.
    pub fn changed(&self, is_up: bool) {
        self.transitions
            .of(usize::from(is_up), if is_up { "up" } else { "down" })
            .increment(1);
    }

    /// Whether nobody holds the server any more: neither a pool nor a session.
    pub(super) fn is_over(&self) -> bool {
        self.server.strong_count() == 0
    }

    pub(super) fn show(&self) {
        let Some(server) = self.server.upgrade() else { return };
        self.up.set(f64::from(u8::from(server.is_up())));
        self.active.set(f64::from(server.live()));
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
    server: Option<Arc<ServerSeries>>,
}

impl LineSeries {
    pub(super) fn new(
        source: &Source,
        labels: &[Label],
        duration: Arc<Histogram>,
        server: Option<Arc<ServerSeries>>,
    ) -> Self {
        let bytes = Counters::<2>::new(source, names::BYTES, labels, "direction");
        Self {
            up: bytes.of(0, "up").clone(),
            down: bytes.of(1, "down").clone(),
            endings: Counters::new(source, names::SESSIONS, labels, "ending"),
            duration,
            server,
        }
    }

    /// The server's own series; `None` where none was chosen.
    #[must_use]
    pub fn server(&self) -> Option<&ServerSeries> {
        self.server.as_deref()
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

    /// Whether no session will come this way again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.is_over())
    }

    pub(super) fn show(&self) {
        self.up.increment(0);
        self.down.increment(0);
        self.endings.touch();
    }
}
