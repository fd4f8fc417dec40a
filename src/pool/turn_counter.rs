//! A counter that all workers advance.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts turns. It has a cache line of its own: each turn takes that line from the other workers, who go on reading
/// what would be its neighbours.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct TurnCounter(AtomicUsize);

impl TurnCounter {
    /// A counter that begins with this turn.
    pub(super) const fn starting_at(first: usize) -> Self {
        Self(AtomicUsize::new(first))
    }

    /// Takes one turn: its number.
    pub(super) fn take(&self) -> usize {
        self.0.fetch_add(1, Relaxed)
    }

    /// The number of the turn to be taken next.
    pub(super) fn upcoming(&self) -> usize {
        self.0.load(Relaxed)
    }
}
