//! A session's claim on a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::Server;
use super::candidates::Candidate;
use super::ejection::LeaseKind;

/// One session's claim on a server: it counts as an open session there until the lease ends or is dropped.
#[must_use = "dropping the lease ends the session's claim"]
#[derive(Debug)]
pub struct Lease {
    server: Arc<Server>,
    kind: LeaseKind,
    /// Whether the server has a maximum of sessions.
    is_limited: bool,
    /// Whether a connect to the server has begun.
    may_be_connected: bool,
    /// Whether the server is known to serve the session.
    is_served: AtomicBool,
    /// Whether the server has failed the session, and that was recorded.
    has_failed: AtomicBool,
    /// Whether [`Self::end`] has ended the claim, so that the drop does not.
    has_ended: AtomicBool,
}

/// Why a pick gives no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLease {
    /// No server is left that could be picked.
    NoServer,
    /// From a pick: the client has to wait, because all servers that could be picked are full (in a pool with a `queue`
    /// whose policy chooses by client: the client's own server is full), because other clients wait already, or because
    /// a server is being started, will be started, or is expected back. From a queue: the queue is full.
    Full,
}

impl Lease {
    /// A lease on a server that has no maximum of sessions.
    pub(super) fn take(server: &Arc<Server>, kind: LeaseKind) -> Self {
        server.add_session();
        Self::new(Arc::clone(server), kind, false)
    }

    /// A lease for a session that [`Candidate::try_add_session`] has counted already.
    pub(super) fn for_place(candidate: Candidate, kind: LeaseKind) -> Self {
        Self::new(candidate.server, kind, candidate.sessions_max.is_some())
    }

    fn new(server: Arc<Server>, kind: LeaseKind, is_limited: bool) -> Self {
        Self {
            server,
            kind,
            is_limited,
            may_be_connected: false,
            is_served: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    /// Notes that a connect begins. From now on the server process may count the session, even before we see that the
    /// connect has succeeded.
    pub fn set_connecting(&mut self) {
        self.may_be_connected = true;
    }

    /// Whether the lease must be held, for a bounded time, until the server has ended the session: the sessions of the
    /// server are limited here, and a connect has begun, so that the server process may still count this session.
    #[must_use]
    pub fn must_be_held(&self) -> bool {
        self.is_limited && self.may_be_connected && !self.has_ended.load(Relaxed)
    }

    /// Ends the claim before the drop. To be called when the server has ended the session. Later calls, and the drop,
    /// change nothing.
    pub fn end(&self) {
        if !self.has_ended.swap(true, Relaxed) {
            self.end_session();
        }
    }

    fn end_session(&self) {
        let has_outcome = self.is_served.load(Relaxed) || self.has_failed();
        if self.kind == LeaseKind::Trial && !has_outcome {
            // Before `Server::end_session` lets the next client in the queue have the server.
            self.server.release_trial();
        }
        self.server.end_session();
    }

    /// Notes that the server serves the session. Returns whether that was known before.
    pub(super) fn note_served(&self) -> bool {
        self.is_served.swap(true, Relaxed)
    }

    /// Notes that the server has failed the session.
    pub(super) fn note_failed(&self) {
        self.has_failed.store(true, Relaxed);
    }

    /// Whether the server has failed the session, and that was recorded.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Relaxed)
    }

    pub(super) fn kind(&self) -> LeaseKind {
        self.kind
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !*self.has_ended.get_mut() {
            self.end_session();
        }
    }
}
