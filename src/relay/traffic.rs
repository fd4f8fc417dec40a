//! Byte counts of one session, which may be read while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes in both directions. Only the session writes it and any thread may read it; hence plain loads and stores, no
/// locked instruction per read.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client.
    pub up: Moved,
    /// From the server.
    pub down: Moved,
}

/// Bytes read in one direction.
#[derive(Debug, Default)]
pub struct Moved(AtomicU64);

impl Moved {
    /// Counts bytes that were read. Only the session that owns it may call this.
    pub fn add(&self, bytes: usize) {
        self.0.store(self.0.load(Relaxed) + bytes as u64, Relaxed);
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
