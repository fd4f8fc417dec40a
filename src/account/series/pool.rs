//! The series of a pool.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::account::Ending;
use crate::account::histogram::{Histogram, QUEUE_BOUNDS, SESSION_BOUNDS};
use crate::account::totals::SessionTotals;

/// The series of a pool. They exist at least as long as the pool is configured, even if all its servers are replaced.
pub(in crate::account) struct PoolSeries {
    is_configured: AtomicBool,
    /// The totals of its sessions, and of the connects to its servers.
    pub(in crate::account) totals: SessionTotals,
    pub(in crate::account) session_duration: Histogram,
    /// Waits in its queue. Most pools have no queue: the histogram is made when it is first needed.
    queue_wait: OnceLock<Histogram>,
}

impl PoolSeries {
    pub(in crate::account) fn new() -> Self {
        Self {
            is_configured: AtomicBool::new(false),
            totals: SessionTotals::new(),
            session_duration: Histogram::new(SESSION_BOUNDS),
            queue_wait: OnceLock::new(),
        }
    }

    /// The histogram of waits in its queue, made now if there was none.
    pub(in crate::account) fn queue_wait(&self) -> &Histogram {
        self.queue_wait.get_or_init(|| Histogram::new(QUEUE_BOUNDS))
    }

    /// The histogram of waits in its queue; `None`: it has not been made.
    pub(in crate::account) fn queue_wait_if_any(&self) -> Option<&Histogram> {
        self.queue_wait.get()
    }

    /// Sets whether the pool is part of the configuration.
    pub(in crate::account) fn publish_configured(&self, is_configured: bool) {
        self.is_configured.store(is_configured, Relaxed);
    }

    /// Whether the pool is part of the configuration.
    pub(in crate::account) fn is_configured(&self) -> bool {
        self.is_configured.load(Relaxed)
    }

    /// Counts a session that has ended, with the time since it was accepted.
    pub(in crate::account) fn record_session(&self, ending: Ending, duration: Duration) {
        self.totals.record_ending(ending);
        self.session_duration.record(duration);
    }
}
