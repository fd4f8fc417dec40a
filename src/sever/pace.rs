//! The pace at which sessions are ended.

use std::time::Duration;

use tokio::time::Instant;

/// Ends sessions evenly over a time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The time over which they are ended.
    pub over: Duration,
    /// When that time began.
    pub began: Instant,
    /// The number of sessions at that moment.
    pub initial: usize,
}

impl Pace {
    /// How many of the `present` sessions have to be ended now. Of n initial sessions the i-th is ended after (i - 1)/n
    /// of the time, so the first one at once. A session that ends by itself takes the place of one that would have to
    /// be ended. At the end of the time, all present sessions are ended, also those that were added meanwhile.
    #[must_use]
    pub fn due(&self, now: Instant, present: usize) -> usize {
        let time_left = self.over.saturating_sub(now - self.began);
        if time_left.is_zero() {
            return present;
        }
        let share = (self.initial as u128 * time_left.as_nanos()).div_ceil(self.over.as_nanos());
        // The share is at most `initial`, so it fits into a `usize`. One session less may remain, because the first is
        // ended at once.
        let may_remain = (share as usize).saturating_sub(1);
        present.saturating_sub(may_remain)
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
    async fn sessions_are_ended_evenly_over_the_whole_time() {
        let five = pace(5, TEN);
        let mut present = 5;
        let mut ended_at_seconds = Vec::new();
        let mut elapsed = Duration::ZERO;
        while elapsed <= TEN {
            let due = five.due(five.began + elapsed, present);
            present -= due;
            ended_at_seconds.extend(std::iter::repeat_n(elapsed.as_secs(), due));
            elapsed += INTERVAL_MIN;
        }
        assert_eq!(ended_at_seconds, [0, 2, 4, 6, 8]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_session_is_ended_at_once() {
        let one = pace(1, TEN);
        assert_eq!(one.due(one.began, 1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_of_zero_ends_all_sessions_at_once() {
        let many = pace(1000, Duration::ZERO);
        assert_eq!(many.due(many.began, 1000), 1000);
    }

    proptest! {
        #[test]
        fn neither_too_many_nor_too_few_sessions_are_ended_and_all_at_the_end(
            initial in 1usize..5000,
            millis in 0u64..60_000,
            steps in prop::collection::vec((0u64..500, 0usize..20, 0usize..20), 1..60),
        ) {
            let pace = pace(initial, Duration::from_millis(millis));
            let (mut now, mut present) = (pace.began, initial);
            for (wait, leave, come) in steps {
                now += Duration::from_millis(wait);
                present = present.saturating_sub(leave) + come;
                let due = pace.due(now, present);
                prop_assert!(due <= present);
                present -= due;
                let time_left = pace.over.saturating_sub(now - pace.began);
                // The sessions that remain, if any, must be fewer than the exact share, initial * time_left / over.
                // Both sides are multiplied by `over`, so that whole numbers are compared.
                let over = pace.over.as_nanos();
                let share_times_over = initial as u128 * time_left.as_nanos();
                let remaining_times_over = present as u128 * over;
                let too_many_remain = present > 0 && remaining_times_over >= share_times_over;
                prop_assert!(!too_many_remain);
                let one_more_might_remain = remaining_times_over + over < share_times_over;
                prop_assert!(due == 0 || !one_more_might_remain, "too many were ended");
            }
            prop_assert_eq!(pace.due(pace.began + pace.over, present), present);
        }
    }
}
