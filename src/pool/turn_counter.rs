//! A turn counter shared by all workers.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts the turns that picks of servers take. It has its own cache line: each turn writes it, and the fields next to
/// it are read by all workers.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct TurnCounter(AtomicUsize);

impl TurnCounter {
    /// A counter whose next turn has this number.
    pub(super) const fn starting_at(first: usize) -> Self {
        Self(AtomicUsize::new(first))
    }

    /// Takes the next turn. Returns its number.
    pub(super) fn take(&self) -> usize {
        self.0.fetch_add(1, Relaxed)
    }

    /// The number of the next turn, without taking it.
    pub(super) fn upcoming(&self) -> usize {
        self.0.load(Relaxed)
    }
}
