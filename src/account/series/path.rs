//! The series of a path.

use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::Equivalent;
use metrics::Label;

use super::counters::{BufferedCounter, LabelledCounters, SharedRecorder};
use super::listener::{ListenerId, ListenerSeries};
use super::pool::PoolSeries;
use super::server::ServerSeries;
use crate::account::{Ending, names};
use crate::dial::ConnectFailure;
use crate::pool::{Server, ServerId};

/// Identifies a path: the listener of a session, and the pool and server chosen for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)] // hashes like `PathRef`
pub struct PathKey {
    /// The listener that accepted the session.
    pub listener: ListenerId,
    /// The name of the pool; empty if none was chosen.
    pub pool: Arc<str>,
    /// The server; `None` if none was chosen.
    pub server: Option<ServerId>,
}

/// What a path is looked up by. It borrows the pool's name, because cloning the `Arc` of the name would change memory
/// that all workers share: its reference count.
#[derive(Hash)]
pub(in crate::account) struct PathRef<'a> {
    pub(in crate::account) listener: ListenerId,
    pub(in crate::account) pool: &'a str,
    pub(in crate::account) server: Option<ServerId>,
}

impl Equivalent<PathKey> for PathRef<'_> {
    fn equivalent(&self, key: &PathKey) -> bool {
        self.listener == key.listener && *self.pool == *key.pool && self.server == key.server
    }
}

/// The series of a path as one worker holds them. Each session changes the reference count several times. So that
/// workers do not share this count, each has an `Arc<WorkerPath>` of its own.
pub(in crate::account) struct WorkerPath(Arc<PathSeries>);

impl WorkerPath {
    pub(in crate::account) fn new(series: Arc<PathSeries>) -> Arc<Self> {
        Arc::new(Self(series))
    }
}

impl Deref for WorkerPath {
    type Target = PathSeries;

    fn deref(&self) -> &PathSeries {
        &self.0
    }
}

/// The series of all sessions with the same [`PathKey`].
pub struct PathSeries {
    bytes_up: BufferedCounter,
    bytes_down: BufferedCounter,
    sessions: LabelledCounters<{ Ending::ALL.len() }>,
    pool: Arc<PoolSeries>,
    listener: Weak<ListenerSeries>,
    /// The server and its series; `None`: none was chosen. The server is held weakly, so that [`Self::is_gone`] sees
    /// its end.
    server: Option<(Weak<Server>, Arc<ServerSeries>)>,
}

impl PathSeries {
    pub(in crate::account) fn new(
        recorder: &SharedRecorder,
        labels: &[Label],
        pool: Arc<PoolSeries>,
        listener: &Arc<ListenerSeries>,
        server: Option<(Weak<Server>, Arc<ServerSeries>)>,
    ) -> Self {
        let bytes = |direction| {
            let labels = [labels, &[Label::from_static_parts("direction", direction)]].concat();
            BufferedCounter::new(recorder, names::BYTES, labels)
        };
        Self {
            bytes_up: bytes("up"),
            bytes_down: bytes("down"),
            sessions: LabelledCounters::new(recorder, names::SESSIONS, labels, "ending"),
            pool,
            listener: Arc::downgrade(listener),
            server,
        }
    }

    /// The series of the server; `None` if none was chosen.
    #[must_use]
    pub fn server(&self) -> Option<&ServerSeries> {
        self.server.as_ref().map(|(_, series)| &**series)
    }

    /// Adds bytes read from the client (`up`) and from the server (`down`).
    pub fn add_bytes(&self, up: u64, down: u64) {
        if up > 0 {
            self.bytes_up.increment(up);
        }
        if down > 0 {
            self.bytes_down.increment(down);
        }
        if up + down > 0 {
            self.pool.totals.add_bytes(up, down);
        }
    }

    /// Counts a session that has ended, with the time since it was accepted.
    pub fn record_session(&self, ending: Ending, duration: Duration) {
        self.sessions.get(ending as usize, ending.as_str()).increment(1);
        self.pool.record_session(ending, duration);
    }

    /// Counts an attempt to connect to the server: its duration if it succeeded, else the reason of the failure.
    pub fn record_attempt(&self, duration: Duration, failure: Option<ConnectFailure>) {
        if let Some(server) = self.server() {
            server.record_attempt(duration, failure);
        }
        if failure.is_none() {
            self.pool.totals.record_connect(duration);
        }
    }

    /// Counts a wait in the pool's queue.
    pub fn record_queue_wait(&self, waited: Duration) {
        self.pool.queue_wait().record(waited);
    }

    /// Whether no further session can take this path: the listener is gone, or the server is, or (for sessions without
    /// a server) the pool is no longer configured.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let has_no_destination = match &self.server {
            Some((server, _)) => server.strong_count() == 0,
            None => !self.pool.is_configured(),
        };
        // The registry holds every listener's series once; if nothing else holds them, the listener is gone. While the
        // metrics are rendered, all series are held once more, and no listener counts as gone.
        has_no_destination || self.listener.strong_count() <= 1
    }

    /// Exports the counters.
    pub(in crate::account) fn export(&self) {
        self.bytes_up.export();
        self.bytes_down.export();
        self.sessions.export();
    }
}

#[cfg(test)]
mod tests {
    use hashbrown::HashMap;

    use super::*;
    use crate::account::Metrics;

    #[test]
    fn a_path_is_found_by_a_path_ref() {
        let listener = Metrics::new().listener(&"l".into()).id();
        let key = |pool: &str| PathKey {
            listener,
            pool: pool.into(),
            server: None,
        };
        let paths: HashMap<_, _> = ["p", "q"].map(|pool| (key(pool), pool)).into();
        let found = |pool| {
            paths.get(&PathRef {
                listener,
                pool,
                server: None,
            })
        };
        assert_eq!([found("p"), found("q"), found("r")], [Some(&"p"), Some(&"q"), None]);
    }
}
