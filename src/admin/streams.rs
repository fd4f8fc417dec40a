//! What the streams of events share, and how a connection shows that it is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::body::Bytes;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The events that a client may be behind: at least four seconds' worth, since there are at most two a second.
pub(super) const BACKLOG_MAX: usize = 8;

/// The streams of events.
pub struct Events {
    pub(super) sender: broadcast::Sender<Bytes>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) streams_max: usize,
}

impl Events {
    /// No streams, and at most `streams_max` at a time, of all admin endpoints together.
    #[must_use]
    pub fn new(streams_max: usize) -> Self {
        Self {
            sender: broadcast::Sender::new(BACKLOG_MAX),
            permits: Arc::new(Semaphore::new(streams_max)),
            streams_max,
        }
    }
}

/// Whether the response of a connection is a stream of events, which may last.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamMark {
    has_begun: Arc<AtomicBool>,
    /// Cancelled when the last event was handed over.
    ended: CancellationToken,
}

impl StreamMark {
    /// The response is a stream from now on.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Relaxed);
    }

    /// The stream has ended when the result is dropped.
    pub(super) fn end_with(self) -> DropGuard {
        self.ended.drop_guard()
    }

    /// Whether the stream has begun and goes on.
    pub(super) fn is_open(&self) -> bool {
        self.has_begun.load(Relaxed) && !self.ended.is_cancelled()
    }

    /// Waits until the stream has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}
