//! A session's wait in the queue of a pool.

use std::time::Duration;

use tokio::time::Instant;

/// A session's wait in the queue of a pool.
#[derive(Debug)]
pub(super) struct QueueWait {
    position: usize,
    /// The sum of the waits that are over.
    waited: Duration,
    /// When the current wait began; `None`: it does not wait.
    since: Option<Instant>,
    /// Whether it first began to wait because the pool slept.
    has_slept: bool,
}

impl QueueWait {
    /// The session begins to wait at this position, for the first time or again.
    pub(super) fn begin(wait: &mut Option<Self>, position: usize, is_asleep: bool) {
        let wait = wait.get_or_insert(Self {
            position,
            waited: Duration::ZERO,
            since: None,
            has_slept: is_asleep,
        });
        wait.since = Some(Instant::now());
    }

    /// Ends the wait. Returns how long it was; `None`: the session did not wait.
    pub(super) fn end(&mut self) -> Option<Duration> {
        let waited = self.since.take()?.elapsed();
        self.waited += waited;
        Some(waited)
    }

    /// Its position in the queue when it first began to wait, from 1.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// How long it has waited for a pool that slept; `None`: the pool did not sleep.
    pub(super) fn woken(&self) -> Option<Duration> {
        self.has_slept.then_some(self.waited)
    }

    /// How long it has waited, up to the latest [`Self::end`].
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}
