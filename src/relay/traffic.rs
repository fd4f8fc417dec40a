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

/// Bytes read in one direction; the highest bit tells whether the sender has ended. One word, because every session has
/// two.
#[derive(Debug, Default)]
pub struct ByteCounter(AtomicU64);

const HAS_ENDED: u64 = 1 << 63;

impl ByteCounter {
    /// Counts bytes that were read. Only the session that owns it may call this.
    pub fn add(&self, bytes: usize) {
        self.0.store(self.0.load(Relaxed) + bytes as u64, Relaxed);
    }

    /// Begins to count anew. Only the session that owns it may call this, and only before its bytes are published.
    pub fn restart(&self) {
        self.0.store(0, Relaxed);
    }

    /// Bytes counted so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Relaxed) & !HAS_ENDED
    }

    /// Notes the end of the stream. A server's end of stream, or its reset, has arrived; a client's end of stream was
    /// sent on to its server. Only the session that owns it may call this.
    pub fn end(&self) {
        self.0.store(self.0.load(Relaxed) | HAS_ENDED, Relaxed);
    }

    /// Whether the end of a server's stream, or its reset, has arrived, although bytes before it may not be read yet;
    /// or whether the end of a client's stream was sent on to its server.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.load(Relaxed) & HAS_ENDED != 0
    }
}
