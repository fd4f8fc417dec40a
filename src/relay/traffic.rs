//! The progress of a session, which can be read while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes in both directions. Only the session writes them and any thread may read them; so plain loads and stores are
/// enough, without an atomic read-modify-write instruction.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client.
    pub up: ByteCounter,
    /// From the server.
    pub down: ByteCounter,
}

/// Bytes read in one direction; the highest bit tells whether its stream [has ended](Self::has_ended). Both are in one
/// word to keep sessions small.
#[derive(Debug, Default)]
pub struct ByteCounter(AtomicU64);

const HAS_ENDED: u64 = 1 << 63;

impl ByteCounter {
    /// Counts bytes that were read. Only the session that owns it may call this.
    pub fn add(&self, bytes: usize) {
        self.0.store(self.0.load(Relaxed) + bytes as u64, Relaxed);
    }

    /// Resets the count to 0. Only the session that owns it may call this, and only before the stream has ended and
    /// before the count is added to the metrics.
    pub fn restart(&self) {
        self.0.store(0, Relaxed);
    }

    /// Bytes counted so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Relaxed) & !HAS_ENDED
    }

    /// Notes the end of the stream, in the sense of [`Self::has_ended`]. Only the session that owns it may call this.
    pub fn end(&self) {
        self.0.store(self.0.load(Relaxed) | HAS_ENDED, Relaxed);
    }

    /// Whether the stream has ended. A server's stream has ended once its end has arrived or its connection is broken,
    /// even if bytes before that are not read yet. Invalid TLS from the server is not an end. A client's stream has
    /// ended once its end was sent on to the server.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.load(Relaxed) & HAS_ENDED != 0
    }
}
