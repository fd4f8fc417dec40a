//! The ids of sessions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The id of the next session.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The id of a new session.
pub(super) fn next() -> u64 {
    NEXT.fetch_add(1, Relaxed)
}

/// The number of sessions opened since the process started.
#[must_use]
pub fn sessions_opened() -> u64 {
    NEXT.load(Relaxed) - 1
}
