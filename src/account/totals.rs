//! The totals of a worker's sessions since the start.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Ending;
use super::histogram::{DurationCounts, HANDSHAKE_BOUNDS, Histogram};

/// Counters of one worker's sessions. Only that worker writes them.
#[derive(Debug)]
pub(super) struct Totals {
    /// Indexed by the discriminant of [`Ending`].
    endings: [AtomicU64; Ending::ALL.len()],
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    connect_duration: Histogram,
    /// How long the worker has been busy, in microseconds.
    busy_us: AtomicU64,
}

impl Totals {
    pub(super) fn new() -> Self {
        Self {
            endings: [const { AtomicU64::new(0) }; Ending::ALL.len()],
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            connect_duration: Histogram::new(HANDSHAKE_BOUNDS),
            busy_us: AtomicU64::new(0),
        }
    }

    pub(super) fn record_ending(&self, ending: Ending) {
        self.endings[ending as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn add_bytes(&self, up: u64, down: u64) {
        self.bytes_up.fetch_add(up, Relaxed);
        self.bytes_down.fetch_add(down, Relaxed);
    }

    pub(super) fn record_connect(&self, duration: Duration) {
        self.connect_duration.record(duration);
    }

    pub(super) fn record_busy(&self, busy: Duration) {
        self.busy_us.store(busy.as_micros() as u64, Relaxed); // enough for 584,000 years
    }

    pub(super) fn busy(&self) -> Duration {
        Duration::from_micros(self.busy_us.load(Relaxed))
    }

    /// The counts now.
    pub(super) fn read(&self) -> TotalCounts {
        TotalCounts {
            endings: self.endings.each_ref().map(|count| count.load(Relaxed)),
            bytes_up: self.bytes_up.load(Relaxed),
            bytes_down: self.bytes_down.load(Relaxed),
            connects: self.connect_duration.counts(),
        }
    }
}

/// The totals of sessions since the start.
#[derive(Clone, Debug)]
pub struct TotalCounts {
    /// Sessions that have ended, indexed by the discriminant of [`Ending`].
    pub endings: [u64; Ending::ALL.len()],
    /// Bytes from clients, up to a second late.
    pub bytes_up: u64,
    /// Bytes from servers, up to a second late.
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
    /// Adds the counts of another worker.
    pub fn add(&mut self, other: &Self) {
        self.endings
            .iter_mut()
            .zip(other.endings)
            .for_each(|(sum, count)| *sum += count);
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.connects.add(&other.connects);
    }
}
