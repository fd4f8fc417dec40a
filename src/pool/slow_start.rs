//! Slow start: the weight of a server that came back grows over a time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The percentage of its weight that a server has when it comes back.
const FIRST_PERCENT: u16 = 10;

/// The slow start of one server: one atomic word, read without a lock.
#[derive(Debug)]
pub(super) struct SlowStart {
    created_at: Instant,
    /// When the slow start began: the nanoseconds from `created_at` to then, plus 1. 0: the server has its full weight.
    began: AtomicU64,
}

impl SlowStart {
    /// A server that has its full weight.
    pub(super) fn new() -> Self {
        Self {
            created_at: Instant::now(),
            began: AtomicU64::new(0),
        }
    }

    /// Begins a slow start: the server came back.
    pub(super) fn begin(&self) {
        let age = u64::try_from(self.created_at.elapsed().as_nanos()).unwrap_or(u64::MAX); // the maximum is 584 years
        self.began.store(age.saturating_add(1), Relaxed);
    }

    /// The percentage of its weight that the server has. It rises linearly from 0 to 100 over `duration`, but is never
    /// below [`FIRST_PERCENT`]. The first call after `duration` ends the slow start.
    pub(super) fn percent(&self, now: Instant, duration: Duration) -> u16 {
        let began = self.began.load(Relaxed);
        let Some(start) = self.start_time(began) else {
            return 100;
        };
        let elapsed = now.saturating_duration_since(start);
        if elapsed >= duration {
            // Fails if another slow start has begun in the meantime.
            let _ = self.began.compare_exchange(began, 0, Relaxed, Relaxed);
            return 100;
        }
        let part = 100 * elapsed.as_nanos() / duration.as_nanos().max(1);
        u16::try_from(part).unwrap_or(100).max(FIRST_PERCENT)
    }

    /// When the percentage changes next; `None`: never, for example because the server has its full weight.
    pub(super) fn next_percent_at(&self, now: Instant, duration: Duration) -> Option<Instant> {
        let start = self.start_time(self.began.load(Relaxed))?;
        let next = u128::from(self.percent(now, duration)) + 1;
        if next > 100 {
            return None;
        }
        let after = (next * duration.as_nanos()).div_ceil(100);
        // A time that the clock cannot represent never comes.
        start.checked_add(Duration::from_nanos(u64::try_from(after).ok()?))
    }

    /// The time that `began` stands for; `None`: the server has its full weight.
    fn start_time(&self, began: u64) -> Option<Instant> {
        Some(self.created_at + Duration::from_nanos(began.checked_sub(1)?))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_server_that_came_back_gets_its_weight_gradually() {
        let slow_start = SlowStart::new();
        assert_eq!(
            slow_start.percent(Instant::now(), TEN),
            100,
            "a new server has its full weight"
        );
        advance(TEN).await;
        slow_start.begin();
        let mut seen = Vec::new();
        for _ in 0..11 {
            seen.push(slow_start.percent(Instant::now(), TEN));
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(seen, [10, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        slow_start.begin();
        assert_eq!(slow_start.percent(Instant::now(), TEN), 10, "a second time");
        assert_eq!(slow_start.percent(Instant::now(), Duration::ZERO), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn the_percentage_changes_at_the_announced_instant_and_not_before() {
        for duration in [Duration::from_nanos(7), Duration::from_nanos(1_234_567), TEN] {
            let slow_start = SlowStart::new();
            advance(TEN).await;
            slow_start.begin();
            let mut now = Instant::now();
            let mut percents = vec![slow_start.percent(now, duration)];
            while let Some(next) = slow_start.next_percent_at(now, duration) {
                let before = next - Duration::from_nanos(1);
                assert_eq!(
                    slow_start.percent(before, duration),
                    *percents.last().unwrap(),
                    "{duration:?}"
                );
                percents.push(slow_start.percent(next, duration));
                now = next;
            }
            assert!(percents.is_sorted_by(|a, b| a < b), "{percents:?}");
            assert_eq!((percents[0], percents.last()), (10, Some(&100)));
        }
    }
}
