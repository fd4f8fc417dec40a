//! The state that all event streams share, and the mark of a connection that carries an event stream.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many events a client may be behind: those of at least four seconds, because there are at most two a second.
pub(super) const BACKLOG_MAX: usize = 8;

/// The streams of events.
pub struct Events {
    pub(super) sender: broadcast::Sender<Bytes>,
    /// Whether a stream has begun since the last look for changes. Such a stream began with the state at another moment
    /// than that look. So the event of the next look must be the whole state, not the changes since that look.
    pub(super) has_new_stream: AtomicBool,
    /// The permits for streams of all endpoints.
    permits: Arc<Semaphore>,
    /// The permits that streams of the admin port need in addition to one of `permits`.
    port_permits: Arc<Semaphore>,
}

/// The right to have a stream open, for as long as it is held: one permit of each limit that applies.
pub(super) type StreamPermit = Vec<OwnedSemaphorePermit>;

impl Events {
    /// Allows at most `streams_max` streams at a time, over all admin endpoints. A fourth of them is reserved for the
    /// Unix socket: clients of the port that do not read may hold all others for long, because their events stay in the
    /// kernel's buffers.
    #[must_use]
    pub fn new(streams_max: usize) -> Self {
        Self {
            sender: broadcast::Sender::new(BACKLOG_MAX),
            has_new_stream: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(streams_max)),
            port_permits: Arc::new(Semaphore::new(streams_max - streams_max / 4)),
        }
    }

    /// The permit for one more stream: of the admin port if `is_over_tcp`, else of the Unix socket. `None`: a limit is
    /// reached.
    pub(super) fn permit(&self, is_over_tcp: bool) -> Option<StreamPermit> {
        let needed = [Some(&self.permits), is_over_tcp.then_some(&self.port_permits)];
        let permits = needed
            .into_iter()
            .flatten()
            .map(|semaphore| Arc::clone(semaphore).try_acquire_owned());
        permits.collect::<Result<_, _>>().ok()
    }
}

/// Tells whether the response on a connection is a stream of events. Such a connection may stay open longer than
/// others, and does not count toward their limit.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamMark {
    /// Cancelled when the response is a stream.
    started: CancellationToken,
    /// Cancelled when the stream has ended: no more events are handed over.
    ended: CancellationToken,
}

impl StreamMark {
    /// Marks the response as a stream. The stream ends when the returned guard is dropped.
    pub(super) fn begin(&self) -> DropGuard {
        self.started.cancel();
        self.ended.clone().drop_guard()
    }

    /// Whether the stream has started and goes on.
    pub(super) fn is_open(&self) -> bool {
        self.started.is_cancelled() && !self.has_ended()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until the response is a stream.
    pub(super) async fn started(&self) {
        self.started.cancelled().await;
    }

    /// Waits until the stream has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}
