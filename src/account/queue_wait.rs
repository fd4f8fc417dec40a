//! A session's waits in the queues of pools.

use std::time::Duration;

use tokio::time::Instant;

/// The waits so far. A session may wait again, if it cannot connect to the server that it got after a wait.
#[derive(Debug)]
pub(super) struct QueueWait {
    position: usize,
    /// The sum of the waits that are over.
    waited: Duration,
    /// When the current wait began; `None`: it does not wait.
    since: Option<Instant>,
    /// How long the first wait was, if the pool slept when it began; `None` until that wait is over.
    woken: Option<Duration>,
    /// Whether the pool slept when the first wait began.
    was_asleep: bool,
}

impl QueueWait {
    /// The session begins to wait at this position, for the first time or again.
    pub(super) fn begin(wait: &mut Option<Self>, position: usize, is_asleep: bool) {
        let wait = wait.get_or_insert(Self {
            position,
            waited: Duration::ZERO,
            since: None,
            woken: None,
            was_asleep: is_asleep,
        });
        wait.since = Some(Instant::now());
    }

    /// Ends the wait. Returns how long it was; `None`: the session did not wait.
    pub(super) fn end(&mut self) -> Option<Duration> {
        let waited = self.since.take()?.elapsed();
        self.waited += waited;
        if self.was_asleep {
            self.woken.get_or_insert(waited);
        }
        Some(waited)
    }

    /// Its position in the queue when it first began to wait, from 1.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// How long the first wait was, if the pool slept when it began; `None`: it did not sleep, or the wait is not over.
    pub(super) fn woken(&self) -> Option<Duration> {
        self.woken
    }

    /// How long it has waited, up to the latest [`Self::end`].
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_later_wait_does_not_count_as_the_start_of_a_sleeping_pool() {
        let mut wait = None;
        for (seconds, is_asleep) in [(2, true), (3, false)] {
            QueueWait::begin(&mut wait, 1, is_asleep);
            tokio::time::advance(Duration::from_secs(seconds)).await;
            wait.as_mut().unwrap().end();
        }
        let wait = wait.unwrap();
        let expected = (Some(Duration::from_secs(2)), Duration::from_secs(5));
        assert_eq!((wait.woken(), wait.waited()), expected);
    }
}
