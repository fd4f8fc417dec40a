//! How many refusals are logged.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::rate::{Nanos, Rate, SharedBucket};

/// Refusals that are logged in a second, and at once.
pub const LINES_PER_SECOND: u32 = 10;

/// Bounds the lines about refusals, so that a flood of clients is no flood of lines.
#[derive(Debug, Default)]
pub(super) struct LineBudget {
    bucket: SharedBucket,
    suppressed: AtomicU64,
}

impl LineBudget {
    /// Whether to log a refusal: the number of those that were not logged since the line before. `None`: do not log it.
    pub(super) fn line(&self, now: Nanos) -> Option<u64> {
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
    fn ten_lines_a_second_and_the_next_counts_the_others() {
        let budget = LineBudget::default();
        let lines: Vec<_> = (0..1_000).filter_map(|_| budget.line(1)).collect();
        assert_eq!(lines, [0; 10]);
        assert_eq!(budget.line(2_000_000_000), Some(990));
        assert_eq!(budget.line(2_000_000_000), Some(0));
    }
}
