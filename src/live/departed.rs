//! The servers that have left their pool, or whose pool is gone, and why their sessions are to be closed.
//!
//! A server that has left is not checked any more. If its sessions were to be closed when it left, the cause remains
//! until all of them are closed. If not, the promotion of another server may become a cause later.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Cause;
use crate::pool::{KnownPrimary, Server, ServerId};

/// A server that has left what is in force.
#[derive(Clone, Debug)]
pub struct Departed {
    /// The server. Held weakly. If the server returns to its pool while something, such as a session, still holds this
    /// `Server`, the pool gets the same `Server` again, otherwise a new one.
    pub server: Weak<Server>,
    /// Why its sessions are to be closed; `None`: they may go on. The cause is its state when it left, the fact that it
    /// left, or the promotion of another server since then.
    pub cause: Option<Cause>,
    /// Whether its pool was removed or renamed, when the server left or later.
    pub left_with_pool: bool,
    /// What was known of it, if it was the primary when it left, and only the primary may serve sessions of its pool.
    pub(super) known_as_primary: Option<Arc<KnownPrimary>>,
}

/// Servers that have left a pool, as long as something holds them, such as a session.
// A blocking mutex: locked for a few lines, and by no session.
#[derive(Debug, Default)]
pub(super) struct DepartedServers(Mutex<Vec<Departed>>);

impl DepartedServers {
    /// Adds servers that leave.
    pub(super) fn extend(&self, departed: Vec<Departed>) {
        self.0.lock().extend(departed);
    }

    /// Forgets servers that are back, and those that nothing holds.
    pub(super) fn forget(&self, present: &HashSet<ServerId>) {
        let is_absent = |server: Arc<Server>| !present.contains(&server.id());
        self.0
            .lock()
            .retain(|departed| departed.server.upgrade().is_some_and(is_absent));
    }

    /// Those that something holds.
    pub(super) fn still_held(&self) -> Vec<Departed> {
        let mut departed = self.0.lock();
        if departed.is_empty() {
            return Vec::new(); // nearly always
        }
        departed.retain(|departed| departed.server.strong_count() > 0);
        departed.clone()
    }
}
