//! The series of a pool.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::account::Ending;
use crate::account::histogram::{Histogram, SESSION_BOUNDS};

/// The series of a pool. They exist as long as the pool is configured, whether or not its servers change.
pub(in crate::account) struct PoolSeries {
    is_configured: AtomicBool,
    pub(in crate::account) session_duration: Histogram,
    /// Indexed by the discriminant of [`Ending`].
    sessions: [AtomicU64; Ending::ALL.len()],
}

impl PoolSeries {
    pub(in crate::account) fn new() -> Self {
        Self {
            is_configured: AtomicBool::new(false),
            session_duration: Histogram::new(SESSION_BOUNDS),
            sessions: [const { AtomicU64::new(0) }; Ending::ALL.len()],
        }
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
        self.sessions[ending as usize].fetch_add(1, Relaxed);
        self.session_duration.record(duration);
    }

    /// The number of sessions that ended in this way.
    pub(in crate::account) fn sessions(&self, ending: Ending) -> u64 {
        self.sessions[ending as usize].load(Relaxed)
    }
}
