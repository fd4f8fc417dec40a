//! Rates, as a token bucket that is one number: the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! A bucket is the time at which everything taken is paid for (`paid_at`). It needs no refill and no timer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A time span in nanoseconds, or a point in time as the nanoseconds since an epoch. It fits into an atomic.
pub(super) type Nanos = u64;

/// This time span in nanoseconds.
pub(super) fn nanos(elapsed: Duration) -> Nanos {
    Nanos::try_from(elapsed.as_nanos()).unwrap_or(Nanos::MAX) // enough for 584 years
}

/// How much may be taken at once, and over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The time that one unit costs.
    interval: Nanos,
    /// How far the bucket may be overdrawn before a unit is refused.
    tolerance: Nanos,
}

impl Rate {
    /// `count` per `period`, and `burst` at once. A count or burst of 0 means 1.
    #[must_use]
    pub fn new(count: u32, period: Duration, burst: u32) -> Self {
        let period = Nanos::try_from(period.as_nanos()).unwrap_or(Nanos::MAX);
        let interval = (period / Nanos::from(count.max(1))).max(1);
        Self {
            interval,
            tolerance: interval.saturating_mul(Nanos::from(burst.max(1) - 1)),
        }
    }

    /// Takes one unit, unless the bucket is overdrawn by more than the tolerance. Returns the new `paid_at`, and
    /// whether a unit was taken.
    ///
    /// The debt is first capped at what a burst costs at this rate: after a reload with a higher rate, the next
    /// unit passes within one interval of the new rate. The returned time has to be stored even if no unit was taken,
    /// for the cap to last.
    pub(super) fn take(self, paid_at: Nanos, now: Nanos) -> (Nanos, bool) {
        let latest = now.saturating_add(self.tolerance).saturating_add(self.interval);
        let paid_at = paid_at.clamp(now, latest);
        match paid_at - now <= self.tolerance {
            true => (paid_at.saturating_add(self.interval), true),
            false => (paid_at, false),
        }
    }

    /// Gives one unit back. Returns the new `paid_at`.
    pub(super) fn give_back(self, paid_at: Nanos) -> Nanos {
        paid_at.saturating_sub(self.interval)
    }
}

/// A bucket that all workers share.
#[derive(Debug, Default)]
pub(super) struct SharedBucket {
    paid_at: AtomicU64,
}

impl SharedBucket {
    /// Takes one unit. Returns whether the rate allows it.
    pub(super) fn take(&self, rate: Rate, now: Nanos) -> bool {
        let mut is_taken = false;
        let update = |paid_at| {
            let (paid_at, taken) = rate.take(paid_at, now);
            is_taken = taken;
            Some(paid_at)
        };
        let _ = self.paid_at.fetch_update(Relaxed, Relaxed, update); // it never fails
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_burst_passes_at_once_and_then_one_unit_per_interval() {
        let rate = Rate::new(20, Duration::from_secs(1), 50);
        let bucket = SharedBucket::default();
        let passed = (0..1_000).filter(|_| bucket.take(rate, SECOND)).count();
        assert_eq!(passed, 50);
        assert!(!bucket.take(rate, SECOND + SECOND / 20 - 1));
        assert!(bucket.take(rate, SECOND + SECOND / 20));
        assert!(!bucket.take(rate, SECOND + SECOND / 20));
        let passed = (0..1_000).filter(|_| bucket.take(rate, 100 * SECOND)).count();
        assert_eq!(
            passed, 50,
            "a bucket holds no more than the burst, however long it was not used"
        );
    }

    #[test]
    fn a_changed_rate_applies_at_once_and_a_higher_one_cuts_old_debts() {
        let (bucket, hour) = (SharedBucket::default(), Duration::from_secs(3_600));
        assert!(bucket.take(Rate::new(10, hour, 1), SECOND));
        assert!(!bucket.take(Rate::new(10, hour, 1), 2 * SECOND), "six minutes are owed");
        let higher = Rate::new(1_000, Duration::from_secs(1), 5);
        assert!(!bucket.take(higher, 2 * SECOND), "a burst is owed at most, …");
        assert!(
            bucket.take(higher, 2 * SECOND + SECOND / 1_000),
            "… so one interval later, one unit passes"
        );
        assert!(!bucket.take(higher, 2 * SECOND + SECOND / 1_000));
        let lower = Rate::new(10, hour, 1);
        assert!(bucket.take(lower, 3 * SECOND) && !bucket.take(lower, 300 * SECOND));
    }

    proptest! {
        /// However much is owed at another rate, a unit passes one interval of the new rate later.
        #[test]
        fn after_any_rate_change_a_unit_passes_within_one_interval(
            before in (1u32..1_000, 1u64..100_000, 1u32..100),
            after in (1u32..1_000, 1u64..100_000, 1u32..100),
            taken in 1usize..200,
        ) {
            let rate = |(count, seconds, burst)| Rate::new(count, Duration::from_secs(seconds), burst);
            let (before, after, bucket) = (rate(before), rate(after), SharedBucket::default());
            for _ in 0..taken {
                bucket.take(before, SECOND);
            }
            bucket.take(after, SECOND);
            prop_assert!(bucket.take(after, SECOND + after.interval));
        }

        /// In any period, the units that pass are at most the burst plus the rate times the period.
        #[test]
        fn no_more_units_pass_than_allowed_and_a_client_that_keeps_to_the_rate_is_never_refused(
            count in 1u32..2_000,
            burst in 1u32..100,
            gaps in proptest::collection::vec(0u64..SECOND / 50, 1..500),
        ) {
            let rate = Rate::new(count, Duration::from_secs(1), burst);
            let bucket = SharedBucket::default();
            let (mut now, mut passed) = (SECOND, 0u64);
            for gap in &gaps {
                now += gap;
                passed += u64::from(bucket.take(rate, now));
            }
            let interval = SECOND / u64::from(count);
            prop_assert!(passed <= u64::from(burst) + (now - SECOND) / interval);
            now += u64::from(burst) * interval; // now everything is paid
            for _ in 0..10 {
                now += interval;
                prop_assert!(bucket.take(rate, now));
            }
        }
    }
}
