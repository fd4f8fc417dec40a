//! A Prometheus histogram of durations.
//!
//! The exporter of the `metrics` crate has histograms too. But it holds every sample until the next rendering. And it
//! removes series only after they have been idle, so it cannot tell a server that is gone from one without sessions.
//! [`Histogram`] is an array of atomics, and its series ends when it is dropped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::exposition::write_sample;

/// In microseconds.
const MILLISECOND: u64 = 1_000;

/// In microseconds.
const SECOND: u64 = 1_000_000;

/// Upper bounds in microseconds, 0.5 ms to 10 s: for steps that take a few round trips (reading a ClientHello,
/// connecting, TLS handshakes, checks).
pub(super) const HANDSHAKE_BOUNDS: &[u64] = &[
    500,
    MILLISECOND,
    2_500,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2_500 * MILLISECOND,
    5 * SECOND,
    10 * SECOND,
];

/// Upper bounds in microseconds, 1 ms to 5 minutes: for waits in the queue of a pool.
pub(super) const QUEUE_BOUNDS: &[u64] = &[
    MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2_500 * MILLISECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
    300 * SECOND,
];

/// Upper bounds in microseconds, 10 ms to 1 day: for sessions.
pub(super) const SESSION_BOUNDS: &[u64] = &[
    10 * MILLISECOND,
    30 * MILLISECOND,
    100 * MILLISECOND,
    300 * MILLISECOND,
    SECOND,
    3 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
    300 * SECOND,
    900 * SECOND,
    3_600 * SECOND,
    10_800 * SECOND,
    43_200 * SECOND,
    86_400 * SECOND,
];

/// Durations counted in buckets.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [u64],
    /// One for each bound and one for durations above the last bound; not cumulative.
    buckets: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Histogram {
    /// Creates an empty histogram. `bounds` are the upper bounds of the buckets in microseconds, ascending.
    #[must_use]
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_us: AtomicU64::new(0),
        }
    }

    /// Counts a duration.
    ///
    /// Not inlined: it is called at several places of a session, whose code should stay small.
    #[inline(never)]
    pub(super) fn record(&self, duration: Duration) {
        // Rounded up, so that a duration that exceeds a bound by a nanosecond is not counted below it.
        let subsecond_us = u64::from(duration.subsec_nanos().div_ceil(1_000));
        let us = duration.as_secs().saturating_mul(SECOND).saturating_add(subsecond_us);
        let bucket = self.bounds.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Whether nothing was counted.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.load(Relaxed) == 0)
    }

    /// The number of durations in each bucket.
    pub(super) fn counts(&self) -> DurationCounts {
        DurationCounts {
            bounds: self.bounds,
            buckets: self.buckets.iter().map(|count| count.load(Relaxed)).collect(),
        }
    }

    /// Appends the lines of this histogram in the text exposition format. `labels` are the text between the braces,
    /// without `le`.
    pub(super) fn write(&self, name: &str, labels: &str, text: &mut String) {
        let mut count = 0;
        let bounds = self
            .bounds
            .iter()
            .map(|bound| seconds(*bound).to_string())
            .chain(["+Inf".to_owned()]);
        let bucket_name = format!("{name}_bucket");
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            count += bucket.load(Relaxed);
            write_sample(text, &bucket_name, &format!("{labels},le=\"{bound}\""), count);
        }
        let sum = Duration::from_micros(self.sum_us.load(Relaxed)).as_secs_f64();
        write_sample(text, &format!("{name}_sum"), labels, sum);
        write_sample(text, &format!("{name}_count"), labels, count);
    }
}

/// Durations by bucket: those that a `Histogram` has recorded up to one moment, or between two moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DurationCounts {
    bounds: &'static [u64],
    /// One for each bound and one for durations above the last bound; empty: no durations.
    buckets: Vec<u64>,
}

impl DurationCounts {
    /// Adds the counts of another histogram with the same bounds.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.clone_from(other);
            return;
        }
        let pairs = self.buckets.iter_mut().zip(&other.buckets);
        pairs.for_each(|(sum, count)| *sum += count);
    }

    /// The durations that were recorded after `before`, an earlier state of the same histogram.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        let pairs = since.buckets.iter_mut().zip(&before.buckets);
        pairs.for_each(|(count, before)| *count = count.saturating_sub(*before));
        since
    }

    /// The quantile, in seconds, for a share of 0 to 1: with 0.5 it is the median. It is interpolated within its
    /// bucket. Durations above the last bound count as that bound. `None`: there are no durations.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.buckets.iter().sum();
        let rank = share * all as f64;
        let (mut count_below, mut lower_bound) = (0, 0.0);
        for (count, bound_us) in self.buckets.iter().zip(self.bounds) {
            let upper_bound = seconds(*bound_us);
            if *count > 0 && (count_below + count) as f64 >= rank {
                let within = (rank - count_below as f64) / *count as f64;
                return Some(lower_bound + (upper_bound - lower_bound) * within);
            }
            count_below += count;
            lower_bound = upper_bound;
        }
        (all > 0).then_some(lower_bound)
    }
}

/// A bound in seconds.
fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let histogram = Histogram::new(&[SECOND, 2 * SECOND, 4 * SECOND]);
        assert_eq!(histogram.counts().quantile(0.5), None);
        for seconds in [1, 2, 2, 4] {
            histogram.record(Duration::from_secs(seconds));
        }
        let counts = histogram.counts();
        assert_eq!(
            [0.25, 0.5, 0.75, 1.0].map(|share| counts.quantile(share).unwrap()),
            [1.0, 1.5, 2.0, 4.0]
        );
        histogram.record(Duration::from_secs(9));
        let since = histogram.counts().since(&counts);
        assert_eq!(since.quantile(0.99), Some(4.0), "above the last bound");
        let mut sum = DurationCounts::default();
        sum.add(&counts);
        sum.add(&since);
        assert_eq!(sum, histogram.counts());
    }

    #[test]
    fn a_duration_equal_to_a_bound_counts_in_the_bucket_of_that_bound() {
        let histogram = Histogram::new(&[500 * MILLISECOND, SECOND]);
        for ms in [500, 501, 1000, 1001] {
            histogram.record(Duration::from_millis(ms));
        }
        let mut text = String::new();
        histogram.write("t_seconds", "pool=\"a\"", &mut text);
        assert_eq!(
            text,
            "t_seconds_bucket{pool=\"a\",le=\"0.5\"} 1\n\
             t_seconds_bucket{pool=\"a\",le=\"1\"} 3\n\
             t_seconds_bucket{pool=\"a\",le=\"+Inf\"} 4\n\
             t_seconds_sum{pool=\"a\"} 3.002\n\
             t_seconds_count{pool=\"a\"} 4\n"
        );
    }
}
