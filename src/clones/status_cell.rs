//! The status of a clone: its task writes it, and its pool reads it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pool::Member;
use crate::scale::{CloneState, CloneStatus};

/// Clients of a pool without a usable server wait for a clone only if its pause before a restart is at most this long,
/// or if the pool may sleep. The pause after the third failure in a row is 2 s, lengthened or shortened by a quarter at
/// most (see `back_off`).
const SHORT_PAUSE_MAX: Duration = Duration::from_millis(2_500);

/// The status of a clone, shared by its task and its pool.
pub(super) struct StatusCell {
    // A blocking mutex: locked for a few lines.
    shown: Mutex<Shown>,
    /// Notified at each change of `shown`, except of its `server`.
    changed: Arc<Notify>,
}

/// The content of a [`StatusCell`].
pub(super) struct Shown {
    pub(super) status: CloneStatus,
    /// The server of the clone, once the pool has that server.
    server: Option<Member>,
    /// The pause before the next start of the clone.
    pub(super) pause: Duration,
    /// Whether the clone has left its pool, and all of it is stopped.
    has_left: bool,
}

impl StatusCell {
    pub(super) fn new(name: Arc<str>, changed: Arc<Notify>) -> Self {
        Self {
            shown: Mutex::new(Shown {
                status: CloneStatus {
                    name,
                    state: CloneState::Starting,
                    is_leaving: false,
                    since: SystemTime::now(),
                    address: None,
                    pid: None,
                    container: None,
                    restarts: 0,
                    reason: None,
                },
                server: None,
                pause: Duration::ZERO,
                has_left: false,
            }),
            changed,
        }
    }

    /// Records that the clone has left its pool, and all of it is stopped.
    pub(super) fn set_left(&self) {
        self.change(|shown| shown.has_left = true);
    }

    /// Whether the clone has left its pool, and all of it is stopped.
    pub(super) fn has_left(&self) -> bool {
        self.shown.lock().has_left
    }

    /// Whether the clone is being started, or will be after a short pause.
    pub(super) fn is_starting_soon(&self) -> bool {
        let shown = self.shown.lock();
        match shown.status.state {
            CloneState::Starting => true,
            CloneState::Waiting => shown.pause <= SHORT_PAUSE_MAX,
            CloneState::Running | CloneState::Draining | CloneState::Stopping => false,
        }
    }

    /// Sets the clone's server in the pool. Must be called as soon as the pool has that server, and with `None` before
    /// the clone is started again: the checks of its former server say nothing about the new one.
    pub(super) fn set_server(&self, server: Option<Member>) {
        self.shown.lock().server = server;
    }

    pub(super) fn server(&self) -> Option<Member> {
        self.shown.lock().server.clone()
    }

    pub(super) fn get(&self) -> CloneStatus {
        self.shown.lock().status.clone()
    }

    /// Enters a state, with further changes.
    pub(super) fn enter(&self, state: CloneState, change: impl FnOnce(&mut Shown)) {
        self.change(|shown| {
            shown.status.state = state;
            shown.status.since = SystemTime::now();
            change(shown);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock());
        self.changed.notify_one();
    }
}
