//! The series of a pool.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::account::Ending;
use crate::account::histogram::{DurationCounts, HANDSHAKE_BOUNDS, Histogram, QUEUE_BOUNDS, SESSION_BOUNDS};

/// The series of a pool. They exist as long as the pool is configured, whether or not its servers change.
pub(in crate::account) struct PoolSeries {
    is_configured: AtomicBool,
    pub(in crate::account) session_duration: Histogram,
    connect_duration: Histogram,
    /// Waits in its queue. Made at first use: most pools have no queue.
    queue_wait: OnceLock<Histogram>,
    /// Indexed by the discriminant of [`Ending`].
    sessions: [AtomicU64; Ending::ALL.len()],
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

impl PoolSeries {
    pub(in crate::account) fn new() -> Self {
        Self {
            is_configured: AtomicBool::new(false),
            session_duration: Histogram::new(SESSION_BOUNDS),
            connect_duration: Histogram::new(HANDSHAKE_BOUNDS),
            queue_wait: OnceLock::new(),
            sessions: [const { AtomicU64::new(0) }; Ending::ALL.len()],
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
        }
    }

    /// The histogram of waits in its queue.
    pub(in crate::account) fn queue_wait(&self) -> &Histogram {
        self.queue_wait.get_or_init(|| Histogram::new(QUEUE_BOUNDS))
    }

    /// As [`Self::queue_wait`]; `None`: the pool never had a queue.
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
        self.sessions[ending as usize].fetch_add(1, Relaxed);
        self.session_duration.record(duration);
    }

    /// Counts a successful connect to one of its servers.
    pub(in crate::account) fn record_connect(&self, duration: Duration) {
        self.connect_duration.record(duration);
    }

    /// Adds bytes read from clients (`up`) and from servers (`down`).
    pub(in crate::account) fn add_bytes(&self, up: u64, down: u64) {
        self.bytes_up.fetch_add(up, Relaxed);
        self.bytes_down.fetch_add(down, Relaxed);
    }

    /// The totals of the pool's sessions since the start.
    pub(in crate::account) fn counts(&self) -> PoolCounts {
        PoolCounts {
            endings: self.sessions.each_ref().map(|count| count.load(Relaxed)),
            connects: self.connect_duration.counts(),
            bytes_up: self.bytes_up.load(Relaxed),
            bytes_down: self.bytes_down.load(Relaxed),
        }
    }

    /// The number of sessions that ended in this way.
    pub(in crate::account) fn sessions(&self, ending: Ending) -> u64 {
        self.sessions[ending as usize].load(Relaxed)
    }
}

/// The totals of a pool's sessions since the start.
#[derive(Clone, Debug)]
pub struct PoolCounts {
    /// Sessions that have ended, indexed by the discriminant of [`Ending`].
    pub endings: [u64; Ending::ALL.len()],
    /// Successful connects to its servers by duration.
    pub connects: DurationCounts,
    /// Bytes from clients, up to a second late.
    pub bytes_up: u64,
    /// Bytes from servers, up to a second late.
    pub bytes_down: u64,
}

impl Default for PoolCounts {
    fn default() -> Self {
        Self {
            endings: [0; Ending::ALL.len()],
            connects: DurationCounts::default(),
            bytes_up: 0,
            bytes_down: 0,
        }
    }
}

impl PoolCounts {
    /// Sessions that have ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.endings.iter().sum()
    }

    /// The sessions that failed: [`Ending::is_failure`].
    #[must_use]
    pub fn failed(&self) -> u64 {
        let failures = Ending::ALL.iter().filter(|ending| ending.is_failure());
        failures.map(|ending| self.endings[*ending as usize]).sum()
    }
}
