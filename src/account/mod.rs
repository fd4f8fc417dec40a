//! Accounting of sessions: open sessions, metrics and the access log.
//!
//! Every session has one [`Entry`] and exactly one [`Ending`]. Each worker has its own [`Ledger`]; all of them count in
//! the same [`Metrics`].
//!
//! **A new metric** has its name in `names.rs` and a row in `docs/metrics.md`. A counter or histogram of sessions is a
//! field of a type in `series`, and a method of [`Entry`] increments it. A gauge, or a counter that is read from
//! elsewhere for each scrape, is a family in one of the `*_samples.rs` or in `metrics`.

mod ending;
mod names;
mod exposition;
mod histogram;
mod openmetrics;
mod pause_episode;
pub mod access_log;
mod guard_samples;
mod announce_samples;
mod scale_samples;
mod state_samples;
mod totals;
mod series;
mod metrics;
mod session_id;
mod session_tls;
mod queue_wait;
mod session_extras;
mod session_info;
mod record;
mod open_session;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use tokio::time::Instant;

pub use self::metrics::{Metrics, acme_renewals, certificate_validity};
pub use announce_samples::{AnnounceSample, write_announced};
pub use ending::Ending;
pub use histogram::DurationCounts;
pub use openmetrics::{OPENMETRICS_TYPE, PROMETHEUS_TYPE, openmetrics, prefers_openmetrics};
pub use record::{Record, SessionView};
pub use scale_samples::{ScaleSamples, write_scales};
pub use series::{
    CancelPlacement, CheckResult, HandshakeResult, ListenerId, ListenerSeries, PathKey, PathSeries, RouteCount,
    ServerSeries, SessionRoute,
};
pub use session_extras::{LogLine, SessionExtras};
pub use session_id::sessions_opened;
pub use session_info::SessionInfo;
pub use session_tls::{SessionProtocol, SessionTls};
pub use state_samples::{
    DiscoverySample, PoolStateSample, RemoteSample, write_busy, write_connection_limits, write_discovery, write_remote,
    write_states, write_unsaved,
};
pub use totals::TotalCounts;

use crate::addr::PeerAddr;
use crate::dial::ConnectFailure;
use crate::ends::Endpoints;
use crate::pool::Server;
use crate::relay::Traffic;
use crate::tcp_info::TcpInfo;
use access_log::AccessLog;
use open_session::OpenSession;
use queue_wait::QueueWait;
use series::{PathRef, WorkerPath};
use totals::WorkerTotals;

/// The accounting of one worker's sessions.
pub struct Ledger {
    metrics: Arc<Metrics>,
    log: AccessLog,
    totals: WorkerTotals,
    // Blocking mutexes: never locked across an await, and nearly always by the worker's own thread only.
    open: Mutex<OpenSessions>,
    /// The series of each path (listener, pool and server) that this worker uses: a cache of the registry in
    /// [`Metrics`], whose lock all workers share.
    paths: Mutex<HashMap<PathKey, Arc<WorkerPath>>>,
}

/// The open sessions of a worker.
struct OpenSessions {
    sessions: Slab<OpenSession>,
    /// When their traffic was last published.
    published_at: Instant,
    /// Once set, all sessions are cut with this ending, including those opened later.
    cut_all: Option<Ending>,
}

impl Ledger {
    /// Creates a ledger without sessions. It counts in `metrics` and writes access records to `log`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, log: AccessLog) -> Self {
        let open = OpenSessions {
            sessions: Slab::new(),
            published_at: Instant::now(),
            cut_all: None,
        };
        Self {
            metrics,
            log,
            totals: WorkerTotals::new(),
            open: Mutex::new(open),
            paths: Mutex::default(),
        }
    }

    /// Opens the entry of a session that was accepted at the time `at`.
    pub fn open(self: &Arc<Self>, listener: &Arc<ListenerSeries>, peer: PeerAddr, at: Instant) -> Entry {
        let info = SessionInfo::new(Arc::clone(listener), peer);
        let record = Arc::new(Record::new(session_id::next(), at, info));
        let mut open = self.open.lock();
        let key = open.sessions.insert(OpenSession {
            record: Arc::clone(&record),
            path: None,
            published: (0, 0),
        });
        if let Some(ending) = open.cut_all {
            record.cut(ending);
        }
        drop(open);
        Entry {
            ledger: Arc::clone(self),
            key,
            record,
            path: None,
            ending: Ending::Internal,
        }
    }

    /// Publishes in the metrics the traffic of the open sessions that are connected to a server, and forgets paths that
    /// no further session can take. To be called once a second, so that the metrics show the traffic of a session while
    /// it lasts.
    pub fn publish_traffic(&self) {
        let mut open = self.open.lock();
        let now = Instant::now();
        let elapsed = now - std::mem::replace(&mut open.published_at, now);
        for (_, session) in &mut open.sessions {
            if let Some((up, down)) = session.publish_traffic() {
                self.totals.sessions.add_bytes(up, down);
                session.record.record_rates(up, down, elapsed);
            }
        }
        drop(open);
        self.paths.lock().retain(|_, path| !path.is_gone());
    }

    /// Records how long the worker has been busy since the start.
    pub fn record_busy(&self, busy: Duration) {
        self.totals.record_busy(busy);
    }

    /// How long the worker has been busy since the start. The worker records it once a second.
    #[must_use]
    pub fn busy(&self) -> Duration {
        self.totals.busy()
    }

    /// The totals of this worker's sessions since the start.
    #[must_use]
    pub fn totals(&self) -> TotalCounts {
        self.totals.sessions.counts()
    }

    /// Cuts every open session with this ending, and every session opened later. Returns whether any is open.
    pub fn cut_all(&self, ending: Ending) -> bool {
        let mut open = self.open.lock();
        open.cut_all = Some(ending);
        for (_, session) in &open.sessions {
            session.record.cut(ending);
        }
        !open.sessions.is_empty()
    }

    /// The records of all open sessions. Takes the lock for 256 sessions at a time: the worker never waits long.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<Record>> {
        const BATCH: usize = 256;
        let mut records = Vec::new();
        let mut start = 0;
        loop {
            let open = self.open.lock();
            let end = open.sessions.capacity(); // every key is below it
            let batch = (start..end.min(start + BATCH)).filter_map(|key| open.sessions.get(key));
            records.extend(batch.map(|session| Arc::clone(&session.record)));
            drop(open);
            start += BATCH;
            if start >= end {
                return records;
            }
        }
    }

    fn path(&self, info: &SessionInfo, server: Option<&Arc<Server>>) -> Arc<WorkerPath> {
        let path_ref = PathRef {
            listener: info.listener.id(),
            pool: info.pool.as_deref().unwrap_or_default(),
            server: server.map(|server| server.id()),
        };
        let mut paths = self.paths.lock();
        if let Some(path) = paths.get(&path_ref).filter(|path| !path.is_gone()) {
            return Arc::clone(path);
        }
        let key = PathKey {
            listener: path_ref.listener,
            pool: info.pool_or_empty(),
            server: path_ref.server,
        };
        let path = WorkerPath::new(self.metrics.path(&key, &info.listener, server));
        paths.insert(key, Arc::clone(&path));
        path
    }
}

/// The entry of one session. Dropping it counts the session and writes its access record, if it is to be logged:
/// exactly once, whichever way the session's task ends.
#[must_use = "dropping the entry closes it"]
pub struct Entry {
    ledger: Arc<Ledger>,
    /// Key in [`OpenSessions::sessions`].
    key: usize,
    record: Arc<Record>,
    /// The path of the latest attempt to connect.
    path: Option<Arc<WorkerPath>>,
    /// [`Ending::Internal`] until [`Entry::close`] sets it, so that a panic is not counted as a clean ending.
    ending: Ending,
}

impl Entry {
    /// The byte counters of the session.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.record.traffic
    }

    /// The record that the admin API sees.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// The known facts about the session, locked. The lock must not be held across an await.
    pub fn info(&self) -> MutexGuard<'_, SessionInfo> {
        self.record.info()
    }

    /// Sniffing (reading the ClientHello, PostgreSQL's first packets or the HTTP request) has ended, successfully or
    /// not.
    pub fn sniff_finished(&mut self) {
        let duration = self.record.age();
        let mut info = self.info();
        info.hello_duration = Some(duration.into());
        info.listener.record_hello_duration(duration);
    }

    /// A TLS handshake with the client has ended with this result.
    pub fn handshake_finished(&self, version: &str, result: HandshakeResult, duration: Duration) {
        self.info().listener.record_tls_handshake(version, result, duration);
    }

    /// The client has resumed a TLS session.
    pub fn tls_session_resumed(&self) {
        self.info().listener.record_tls_resumption();
    }

    /// A pool was chosen. The session has no server until an attempt to connect starts.
    pub fn pool_chosen(&mut self, pool: &Arc<str>) {
        self.path = None;
        let mut info = self.info();
        (info.pool, info.server) = (Some(Arc::clone(pool)), None);
    }

    /// The session begins to wait at this position of the pool's queue. `is_asleep`: whether the pool is asleep.
    pub fn joined_queue(&mut self, position: usize, is_asleep: bool) {
        let mut info = self.info();
        QueueWait::begin(&mut info.extras.get_or_insert_default().queue, position, is_asleep);
    }

    /// The session no longer waits in the pool's queue, if it did.
    pub fn left_queue(&mut self) {
        let mut info = self.record.info();
        let wait = info.extras.as_mut().and_then(|extras| extras.queue.as_mut());
        if let Some(waited) = wait.and_then(QueueWait::end) {
            let path = self.ledger.path(&info, None);
            path.record_queue_wait(waited);
        }
    }

    /// An attempt to connect to a server of the pool has started.
    pub fn attempt_started(&mut self, server: &Arc<Server>) {
        let mut info = self.record.info();
        info.attempts = info.attempts.saturating_add(1);
        info.server = Some(Arc::clone(server));
        self.path = Some(self.ledger.path(&info, Some(server)));
    }

    /// The latest attempt has ended. If it succeeded (`failure` is `None`), the session is now connected to its server.
    pub fn attempt_finished(&mut self, duration: Duration, failure: Option<ConnectFailure>) {
        if let Some(path) = &self.path {
            path.record_attempt(duration, failure);
        }
        if failure.is_none() {
            self.info().set_connected(duration, self.record.age());
            self.ledger.totals.sessions.record_connect(duration);
            if let Some(session) = self.ledger.open.lock().sessions.get_mut(self.key) {
                session.path.clone_from(&self.path);
            }
        }
    }

    /// The connected server takes no session now ([`ConnectFailure::NotReady`]). Counts this as a failed attempt.
    pub fn server_not_ready(&self) {
        if let Some(path) = &self.path {
            path.record_attempt(Duration::ZERO, Some(ConnectFailure::NotReady));
        }
    }

    /// The session leaves the server to which it was connected. It has no server until another attempt starts.
    pub fn left_server(&mut self) {
        self.path = None;
        self.info().set_unconnected();
        if let Some(session) = self.ledger.open.lock().sessions.get_mut(self.key) {
            session.path = None;
        }
    }

    /// The relay between these sockets starts. The record holds them weakly, so that the session can close them.
    pub fn relay_started(&mut self, endpoints: &Arc<Endpoints>) {
        self.info().set_endpoints(endpoints);
    }

    /// The relay has ended. Reads TCP_INFO of both sockets, which are still open, if the access log is on.
    pub fn relay_finished(&mut self, endpoints: &Endpoints) {
        let sockets_info = || [&endpoints.client, &endpoints.server].map(|socket| TcpInfo::read(socket.as_fd()));
        let tcp_info = self.ledger.log.is_on().then(|| Box::new(sockets_info()));
        let mut info = self.info();
        (info.endpoints, info.is_past_relay) = (None, true);
        info.tcp_info = tcp_info;
    }

    /// Closes the entry with this ending.
    pub fn close(mut self, ending: Ending) {
        self.ending = ending;
    }

    fn is_logged(&self, info: &SessionInfo) -> bool {
        if info.is_suppressed() {
            return false;
        }
        let bytes = self.traffic().up.bytes() + self.traffic().down.bytes();
        let did_nothing = bytes == 0 && !info.has_hello && !info.has_waited();
        let is_empty = did_nothing && self.ending.is_probe_like();
        !is_empty || self.ledger.log.is_logging_empty_sessions()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.left_queue(); // the client may have left while it waited
        let path = self.path.take();
        let mut info = self.record.info();
        let duration = self.record.age();
        let path = path.unwrap_or_else(|| self.ledger.path(&info, None));
        let mut session = self.ledger.open.lock().sessions.remove(self.key);
        session.path = Some(Arc::clone(&path));
        let (up, down) = session.publish_traffic().unwrap_or_default();
        self.ledger.totals.sessions.add_bytes(up, down);
        self.ledger.totals.sessions.record_ending(self.ending);
        path.record_session(self.ending, duration);
        if self.ledger.log.is_on() && self.is_logged(&info) {
            let record = info.access_record(self.record.id(), self.traffic(), self.ending, duration);
            self.ledger.log.write(record);
        }
        if let Some(extras) = &mut info.extras {
            extras.end(); // returns the guards' counts now: the admin API may hold the record for longer
        }
    }
}
