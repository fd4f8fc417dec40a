//! The pace at which sessions are ended.

use std::time::Duration;

use tokio::time::Instant;

/// Ends sessions evenly over a time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The time over which they are ended.
    pub over: Duration,
    /// When it began.
    pub began: Instant,
    /// The number of sessions when it began.
    pub initial: usize,
}

impl Pace {
    /// How many of the present sessions have to be ended now, so that no more are left than may be at this time. Of n
    /// sessions the i-th is ended after (i - 1)/n of the time, so the first one at once. A session that has ended by
    /// itself counts as one that was ended. At the end of the time none is left, however many were added meanwhile.
    #[must_use]
    pub fn due(&self, now: Instant, present: usize) -> usize {
        let left = self.over.saturating_sub(now - self.began);
        if left.is_zero() {
            return present;
        }
        let may_be_left = (self.initial as u128 * left.as_nanos()).div_ceil(self.over.as_nanos());
        // At most `initial`, so it fits into a `usize`. One less may be left, because the first session is ended at
        // once.
        present.saturating_sub((may_be_left as usize).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::INTERVAL_MIN;
    use proptest::prelude::*;

    const TEN: Duration = Duration::from_secs(10);

    fn pace(initial: usize, over: Duration) -> Pace {
        let began = Instant::now();
        Pace { over, began, initial }
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_closed_evenly_over_the_whole_time() {
        let five = pace(5, TEN);
        let mut present = 5;
        let mut cut_at = Vec::new();
        for tick in 0..=100 {
            let due = five.due(five.began + INTERVAL_MIN * tick, present);
            present -= due;
            cut_at.extend(std::iter::repeat_n(tick / 10, due));
        }
        assert_eq!(cut_at, [0, 2, 4, 6, 8]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_session_is_closed_at_once() {
        let one = pace(1, TEN);
        assert_eq!(one.due(one.began, 1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_period_of_zero_closes_all_sessions_at_once() {
        let many = pace(1000, Duration::ZERO);
        assert_eq!(many.due(many.began, 1000), 1000);
    }

    proptest! {
        #[test]
        fn all_sessions_are_closed_at_the_end_and_never_more_than_the_pace_allows(
            first in 1usize..5000,
            millis in 0u64..60_000,
            steps in prop::collection::vec((0u64..500, 0usize..20, 0usize..20), 1..60),
        ) {
            let pace = pace(first, Duration::from_millis(millis));
            let (mut now, mut present) = (pace.began, first);
            for (wait, leave, come) in steps {
                now += Duration::from_millis(wait);
                present = present.saturating_sub(leave) + come;
                let due = pace.due(now, present);
                prop_assert!(due <= present);
                present -= due;
                let left = pace.over.saturating_sub(now - pace.began);
                // Whole nanoseconds on both sides: (present + 1) * over against first * left.
                let (over, allowed) = (pace.over.as_nanos(), first as u128 * left.as_nanos());
                let remaining = present as u128 * over;
                prop_assert!(remaining < allowed.max(1));
                prop_assert!(due == 0 || remaining + over >= allowed);
            }
            prop_assert_eq!(pace.due(pace.began + pace.over, present), present);
        }
    }
}
