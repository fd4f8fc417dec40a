//! The series of a listener.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::counters::{BufferedCounter, LabelledCounters, SharedRecorder, label};
use super::tls::{HandshakeResult, TlsSeries};
use crate::account::histogram::{HANDSHAKE_BOUNDS, Histogram};
use crate::account::names;
use crate::account::pause_episode::PauseEpisode;
use crate::listen::AcceptPause;

/// Identifies the series of a listener. Never reused within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

/// How the servers for a request to cancel a query of PostgreSQL were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelPlacement {
    /// By the key of the session, which was read in the login: it came in the clear, or in TLS that is terminated here.
    Key,
    /// By the client's address: sessions of this client whose keys are not known are on these servers.
    Client,
    /// The servers of the listener's pools are asked: all, or 64 of them if there are more.
    Fanout,
    /// No servers were found: neither the key nor the client is known, and the listener does not ask all servers.
    Unplaced,
    /// The request is not sent on: too many requests with an unknown key came in a second.
    Limited,
}

impl CancelPlacement {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Key, Self::Client, Self::Fanout, Self::Unplaced, Self::Limited];

    /// The word for it in metrics and the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "by_key",
            Self::Client => "by_client",
            Self::Fanout => "fanout",
            Self::Unplaced => "unplaced",
            Self::Limited => "limited",
        }
    }
}

/// How many sessions a route has taken or refused, and how many of them are open.
#[derive(Debug)]
pub struct RouteCount {
    pub(in crate::account) name: Arc<str>,
    total: AtomicU64,
    open: AtomicUsize,
}

impl RouteCount {
    /// The name of the route.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The sessions so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// The open sessions.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

/// The route of an open session. The session counts as open until this is dropped.
#[derive(Debug)]
pub struct SessionRoute(Arc<RouteCount>);

impl SessionRoute {
    /// Counts a new session of the route.
    #[must_use]
    pub fn open(route: &Arc<RouteCount>) -> Self {
        route.total.fetch_add(1, Relaxed);
        route.open.fetch_add(1, Relaxed);
        Self(Arc::clone(route))
    }

    /// The name of the route.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }
}

impl Drop for SessionRoute {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The series of a listener.
pub struct ListenerSeries {
    id: ListenerId,
    name: Arc<str>,
    connections: BufferedCounter,
    pauses: LabelledCounters<{ AcceptPause::ALL.len() }>,
    cancels: LabelledCounters<{ CancelPlacement::ALL.len() }>,
    /// Whether there is a pause episode; read on every accept, without the lock.
    has_episode: AtomicBool,
    // A blocking mutex: locked for a few statements, and only by a pause and during an episode.
    episode: Mutex<PauseEpisode>,
    pub(in crate::account) hello_duration: Histogram,
    /// The routes of the configuration in force, in its order.
    // A blocking mutex: locked when a configuration is put in force, and by every reader.
    routes: Mutex<Arc<[Arc<RouteCount>]>>,
    recorder: SharedRecorder,
    /// Made by the first handshake: most listeners have none.
    tls: OnceLock<TlsSeries>,
}

impl std::fmt::Debug for ListenerSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerSeries")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ListenerSeries {
    pub(in crate::account) fn new(recorder: &SharedRecorder, name: &Arc<str>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let labels = [label("listener", name)];
        let pauses = LabelledCounters::new(recorder, names::ACCEPT_PAUSES, &labels, "reason");
        for reason in AcceptPause::ALL {
            // So that `increase()` of PromQL sees the first pause.
            pauses.get(reason as usize, reason.as_str()).increment(0);
        }
        Self {
            id: ListenerId(NEXT.fetch_add(1, Relaxed)),
            name: Arc::clone(name),
            connections: BufferedCounter::new(recorder, names::CONNECTIONS, labels.to_vec()),
            pauses,
            cancels: LabelledCounters::new(recorder, names::CANCELS, &labels, "placement"),
            has_episode: AtomicBool::new(false),
            episode: Mutex::default(),
            hello_duration: Histogram::new(HANDSHAKE_BOUNDS),
            routes: Mutex::new(Arc::new([])),
            recorder: Arc::clone(recorder),
            tls: OnceLock::new(),
        }
    }

    /// Sets the configured routes, in their order. Those that are configured already keep their counts.
    pub fn configure_routes<'a>(&self, names: impl IntoIterator<Item = &'a Arc<str>>) -> Arc<[Arc<RouteCount>]> {
        let mut routes = self.routes.lock();
        let known: HashMap<_, _> = routes.iter().map(|route| (&route.name, route)).collect();
        let known_or_new = |name: &Arc<str>| match known.get(name) {
            Some(&route) => Arc::clone(route),
            None => Arc::new(RouteCount {
                name: Arc::clone(name),
                total: AtomicU64::new(0),
                open: AtomicUsize::new(0),
            }),
        };
        let configured: Arc<[Arc<RouteCount>]> = names.into_iter().map(known_or_new).collect();
        drop(known);
        *routes = Arc::clone(&configured);
        configured
    }

    /// The routes that are configured, in their order.
    #[must_use]
    pub fn routes(&self) -> Arc<[Arc<RouteCount>]> {
        Arc::clone(&self.routes.lock())
    }

    /// The id of these series.
    #[must_use]
    pub fn id(&self) -> ListenerId {
        self.id
    }

    /// The listener's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts an accepted connection.
    pub fn record_accepted(&self) {
        self.connections.increment(1);
        if self.has_episode.load(Relaxed) {
            self.episode.lock().record_accepted();
        }
    }

    /// Counts a request to cancel a query.
    pub fn record_cancel(&self, placement: CancelPlacement) {
        self.cancels.get(placement as usize, placement.as_str()).increment(1);
    }

    /// Counts a pause of accepting; returns whether it begins an episode and should be logged.
    pub fn record_pause(&self, reason: AcceptPause) -> bool {
        self.pauses.get(reason as usize, reason.as_str()).increment(1);
        let mut episode = self.episode.lock();
        self.has_episode.store(true, Relaxed);
        episode.record_pause(Instant::now())
    }

    /// Returns true once when the episode of pauses has ended. To be called every few seconds.
    #[must_use]
    pub fn take_pause_end(&self) -> bool {
        if !self.has_episode.load(Relaxed) {
            return false;
        }
        let mut episode = self.episode.lock();
        let has_ended = episode.take_end(Instant::now());
        self.has_episode.store(!has_ended, Relaxed); // under the lock, like the store in `record_pause`
        has_ended
    }

    /// Counts the time from accept to the end of sniffing, whether or not that succeeded.
    pub fn record_hello_duration(&self, duration: Duration) {
        self.hello_duration.record(duration);
    }

    /// Counts a TLS handshake with a client, with the time from the ClientHello to the end of the handshake. `version`:
    /// `1.2`, `1.3`, or empty where none was agreed.
    pub fn record_tls_handshake(&self, version: &str, result: HandshakeResult, duration: Duration) {
        self.tls_or_new().record_handshake(version, result, duration);
    }

    /// Counts a TLS session that was resumed.
    pub fn record_tls_resumption(&self) {
        self.tls_or_new().record_resumption();
    }

    fn tls_or_new(&self) -> &TlsSeries {
        let make = || TlsSeries::new(&self.recorder, &[label("listener", &self.name)]);
        self.tls.get_or_init(make)
    }

    /// The series of TLS; `None`: there was no handshake.
    pub(in crate::account) fn tls(&self) -> Option<&TlsSeries> {
        self.tls.get()
    }

    /// Exports the counters.
    pub(in crate::account) fn export(&self) {
        self.connections.export();
        self.pauses.export();
        if let Some(tls) = self.tls() {
            tls.export();
        }
        self.cancels.export();
    }
}
