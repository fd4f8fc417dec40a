//! A bound on how many refusals, or failed requests of the API, are logged.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::rate::{Rate, SharedBucket, nanos};

/// How many lines a second a [`LineBudget`] allows at most, on average over time. It also allows this many at once.
pub const LINES_PER_SECOND: u32 = 10;

/// Bounds the lines about refusals, or about failed requests of the API, so that a flood of clients is not a flood of
/// lines. Below, a failed request counts as a refusal.
#[derive(Debug)]
pub struct LineBudget {
    epoch: Instant,
    bucket: SharedBucket,
    /// How many refusals were not logged since the last line.
    suppressed: AtomicU64,
}

impl LineBudget {
    /// A budget of which nothing is used.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it depends on the time")]
    pub fn new() -> Self {
        Self {
            epoch: Instant::now(),
            bucket: SharedBucket::default(),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Asks for a line about a refusal. `Some`: this refusal is to be logged, with the number of those that were not
    /// logged since the last line. `None`: this refusal is not to be logged.
    #[must_use]
    pub fn take_line(&self, now: Instant) -> Option<u64> {
        let now = nanos(now.saturating_duration_since(self.epoch));
        if self.bucket.take(
            Rate::new(LINES_PER_SECOND, Duration::from_secs(1), LINES_PER_SECOND),
            now,
        ) {
            return Some(self.suppressed.swap(0, Relaxed));
        }
        self.suppressed.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_refusals_at_once_ten_are_logged_and_the_next_line_counts_the_others() {
        let (budget, start) = (LineBudget::new(), Instant::now());
        let lines: Vec<_> = (0..1_000).filter_map(|_| budget.take_line(start)).collect();
        assert_eq!(lines, [0; 10]);
        let later = start + Duration::from_secs(2);
        assert_eq!(budget.take_line(later), Some(990));
        assert_eq!(budget.take_line(later), Some(0));
    }
}
