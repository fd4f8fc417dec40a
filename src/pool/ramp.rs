//! The slow start of a server that came back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The percentage of its weight that a server begins with when it comes back.
const FIRST_PERCENT: u16 = 10;

/// When a server came back, if it ever was away: one word, read without a lock.
#[derive(Debug)]
pub(super) struct Ramp {
    made: Instant,
    /// One more than the nanoseconds from `made`; 0: it has its whole weight.
    began: AtomicU64,
}

impl Ramp {
    /// Of a server that begins with its whole weight.
    pub(super) fn new() -> Self {
        Self {
            made: Instant::now(),
            began: AtomicU64::new(0),
        }
    }

    /// It has come back.
    pub(super) fn begin(&self) {
        let age = u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX); // 584 years
        self.began.store(age.saturating_add(1), Relaxed);
    }

    /// What part of its weight it has, 10 to 100 percent, rising evenly over `whole` from when it came back.
    pub(super) fn percent(&self, now: Instant, whole: Duration) -> u16 {
        let began = self.began.load(Relaxed);
        let Some(start) = self.start(began) else { return 100 };
        let since = now.saturating_duration_since(start);
        if since >= whole {
            // Unless it has come back once more in the meantime.
            let _ = self.began.compare_exchange(began, 0, Relaxed, Relaxed);
            return 100;
        }
        let part = 100 * since.as_nanos() / whole.as_nanos().max(1);
        u16::try_from(part).unwrap_or(100).max(FIRST_PERCENT)
    }

    /// When the percentage is another one; `None`: it has its whole weight.
    pub(super) fn next_percent_at(&self, now: Instant, whole: Duration) -> Option<Instant> {
        let start = self.start(self.began.load(Relaxed))?;
        let next = u128::from(self.percent(now, whole)) + 1;
        if next > 100 {
            return None;
        }
        let after = (next * whole.as_nanos()).div_ceil(100);
        // Beyond what the clock can tell is never.
        start.checked_add(Duration::from_nanos(u64::try_from(after).ok()?))
    }

    fn start(&self, began: u64) -> Option<Instant> {
        Some(self.made + Duration::from_nanos(began.checked_sub(1)?))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_server_that_came_back_gets_its_weight_gradually() {
        let ramp = Ramp::new();
        assert_eq!(ramp.percent(Instant::now(), TEN), 100, "at the start of the process");
        advance(TEN).await;
        ramp.begin();
        let mut seen = Vec::new();
        for _ in 0..11 {
            seen.push(ramp.percent(Instant::now(), TEN));
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(seen, [10, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        ramp.begin();
        assert_eq!(ramp.percent(Instant::now(), TEN), 10, "once more");
        assert_eq!(ramp.percent(Instant::now(), Duration::ZERO), 100);
    }
    #[tokio::test(start_paused = true)]
    async fn the_percentage_changes_at_the_announced_instant_and_not_before() {
        for whole in [Duration::from_nanos(7), Duration::from_nanos(1_234_567), TEN] {
            let ramp = Ramp::new();
            advance(TEN).await;
            ramp.begin();
            let mut now = Instant::now();
            let mut percents = vec![ramp.percent(now, whole)];
            while let Some(next) = ramp.next_percent_at(now, whole) {
                let before = next - Duration::from_nanos(1);
                assert_eq!(ramp.percent(before, whole), *percents.last().unwrap(), "{whole:?}");
                percents.push(ramp.percent(next, whole));
                now = next;
            }
            assert!(percents.is_sorted_by(|a, b| a < b), "{percents:?}");
            assert_eq!((percents[0], percents.last()), (10, Some(&100)));
        }
    }
}
