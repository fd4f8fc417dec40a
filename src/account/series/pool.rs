//! The series of a pool.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::account::Ending;
use crate::account::histogram::{Histogram, SESSION_BOUNDS};

/// The series of a pool: they are there as long as it is configured, whatever becomes of its servers.
pub(in crate::account) struct PoolSeries {
    is_configured: AtomicBool,
    pub(in crate::account) duration: Histogram,
    /// By the numbers of endings.
    sessions: [AtomicU64; Ending::ALL.len()],
}

impl PoolSeries {
    pub(in crate::account) fn new() -> Self {
        Self {
            is_configured: AtomicBool::new(false),
            duration: Histogram::new(SESSION_BOUNDS),
            sessions: [const { AtomicU64::new(0) }; Ending::ALL.len()],
        }
    }

    pub(in crate::account) fn set_configured(&self, is_configured: bool) {
        self.is_configured.store(is_configured, Relaxed);
    }

    pub(in crate::account) fn is_configured(&self) -> bool {
        self.is_configured.load(Relaxed)
    }

    pub(in crate::account) fn ended(&self, ending: Ending, took: Duration) {
        self.sessions[ending as usize].fetch_add(1, Relaxed);
        self.duration.record(took);
    }

    /// Sessions that ended so.
    pub(in crate::account) fn sessions(&self, ending: Ending) -> u64 {
        self.sessions[ending as usize].load(Relaxed)
    }
}
