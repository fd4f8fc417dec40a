//! A session's waits in the queues of pools.

use std::time::Duration;

use tokio::time::Instant;

/// The waits of a session so far. It may wait again, if it cannot connect to the server that it got after a wait.
#[derive(Debug)]
pub(super) struct QueueWait {
    /// The position in the queue when the first wait began, from 1.
    position: usize,
    /// The sum of the waits that are over.
    waited: Duration,
    /// When the current wait began; `None`: the session does not wait.
    since: Option<Instant>,
    /// How long the first wait was, if it is over and `was_asleep` is set.
    woken_after: Option<Duration>,
    /// Whether the pool slept when the first wait began.
    was_asleep: bool,
}

impl QueueWait {
    /// The session begins to wait, for the first time or again. Only the first wait sets the position and
    /// `was_asleep`.
    pub(super) fn begin(wait: &mut Option<Self>, position: usize, is_asleep: bool) {
        let wait = wait.get_or_insert(Self {
            position,
            waited: Duration::ZERO,
            since: None,
            woken_after: None,
            was_asleep: is_asleep,
        });
        wait.since = Some(Instant::now());
    }

    /// Ends the wait. Returns how long it was; `None`: the session did not wait.
    pub(super) fn end(&mut self) -> Option<Duration> {
        let wait = self.since.take()?.elapsed();
        self.waited += wait;
        if self.was_asleep {
            self.woken_after.get_or_insert(wait);
        }
        Some(wait)
    }

    /// The position in the queue when the first wait began, from 1.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// How long the first wait was; `None`: that wait is not over, or the pool did not sleep when it began.
    pub(super) fn woken_after(&self) -> Option<Duration> {
        self.woken_after
    }

    /// The sum of the waits that are over.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_first_wait_counts_as_waking_the_pool() {
        for (first_asleep, second_asleep, woken_after) in
            [(true, false, Some(2)), (true, true, Some(2)), (false, true, None)]
        {
            let mut wait = None;
            for (seconds, position, is_asleep) in [(2, 7, first_asleep), (3, 8, second_asleep)] {
                QueueWait::begin(&mut wait, position, is_asleep);
                tokio::time::advance(Duration::from_secs(seconds)).await;
                wait.as_mut().unwrap().end();
            }
            let wait = wait.unwrap();
            let found = (wait.woken_after(), wait.waited(), wait.position());
            assert_eq!(found, (woken_after.map(Duration::from_secs), Duration::from_secs(5), 7));
        }
    }
}
