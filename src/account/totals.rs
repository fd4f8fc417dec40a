//! The totals of sessions since the start: of a worker, and of a pool.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Ending;
use super::histogram::{DurationCounts, HANDSHAKE_BOUNDS, Histogram};

/// Counters of sessions.
#[derive(Debug)]
pub(super) struct SessionTotals {
    /// Indexed by the discriminant of [`Ending`].
    endings: [AtomicU64; Ending::ALL.len()],
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    connect_duration: Histogram,
}

impl SessionTotals {
    pub(super) fn new() -> Self {
        Self {
            endings: [const { AtomicU64::new(0) }; Ending::ALL.len()],
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            connect_duration: Histogram::new(HANDSHAKE_BOUNDS),
        }
    }

    /// Counts a session that has ended.
    pub(super) fn record_ending(&self, ending: Ending) {
        self.endings[ending as usize].fetch_add(1, Relaxed);
    }

    /// Adds bytes read from clients (`up`) and from servers (`down`).
    pub(super) fn add_bytes(&self, up: u64, down: u64) {
        self.bytes_up.fetch_add(up, Relaxed);
        self.bytes_down.fetch_add(down, Relaxed);
    }

    /// Counts a successful connect to a server.
    pub(super) fn record_connect(&self, duration: Duration) {
        self.connect_duration.record(duration);
    }

    /// The number of sessions with this ending.
    pub(super) fn ended(&self, ending: Ending) -> u64 {
        self.endings[ending as usize].load(Relaxed)
    }

    /// The counts now.
    pub(super) fn counts(&self) -> TotalCounts {
        TotalCounts {
            endings: self.endings.each_ref().map(|count| count.load(Relaxed)),
            bytes_up: self.bytes_up.load(Relaxed),
            bytes_down: self.bytes_down.load(Relaxed),
            connects: self.connect_duration.counts(),
        }
    }
}

/// Counters of one worker. Only that worker writes them.
#[derive(Debug)]
pub(super) struct WorkerTotals {
    pub(super) sessions: SessionTotals,
    /// How long the worker has been busy since its start, in microseconds.
    busy_us: AtomicU64,
}

impl WorkerTotals {
    pub(super) fn new() -> Self {
        Self {
            sessions: SessionTotals::new(),
            busy_us: AtomicU64::new(0),
        }
    }

    /// Records how long the worker has been busy since its start.
    pub(super) fn record_busy(&self, busy: Duration) {
        self.busy_us.store(busy.as_micros() as u64, Relaxed); // enough for 584,000 years
    }

    pub(super) fn busy(&self) -> Duration {
        Duration::from_micros(self.busy_us.load(Relaxed))
    }
}

/// The totals of sessions at one moment.
#[derive(Clone, Debug)]
pub struct TotalCounts {
    /// Sessions that have ended, indexed by the discriminant of [`Ending`].
    pub endings: [u64; Ending::ALL.len()],
    /// Bytes from clients. Those of a session are added once a second while it is connected to a server, and when it
    /// ends.
    pub bytes_up: u64,
    /// Bytes from servers, added at the same times.
    pub bytes_down: u64,
    /// Successful connects by duration.
    pub connects: DurationCounts,
}

impl Default for TotalCounts {
    fn default() -> Self {
        Self {
            endings: [0; Ending::ALL.len()],
            bytes_up: 0,
            bytes_down: 0,
            connects: DurationCounts::default(),
        }
    }
}

impl TotalCounts {
    /// Adds the counts of others.
    pub fn add(&mut self, others: &Self) {
        self.endings
            .iter_mut()
            .zip(others.endings)
            .for_each(|(sum, count)| *sum += count);
        self.bytes_up += others.bytes_up;
        self.bytes_down += others.bytes_down;
        self.connects.add(&others.connects);
    }

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
