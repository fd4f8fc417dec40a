//! When to renew a certificate, when to ask its ACME server about that, and when to repeat a failed attempt to order a
//! certificate.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::regular_file;

/// The name of the file with the failed attempts.
const FILE: &str = "attempts.json";

/// A longer file is not read.
const BYTES_MAX: u64 = 16 << 20;

/// The wait after the first failed attempt. The wait doubles with each further failure.
const FIRST_BACK_OFF: Duration = Duration::from_secs(60);

/// The longest wait after a failed attempt.
const BACK_OFF_MAX: Duration = Duration::from_secs(86_400);

/// The shortest wait between two requests for the renewal information of a certificate (RFC 9773, section 4.3.2).
const POLL_INTERVAL_MIN: Duration = Duration::from_secs(60);

/// The longest wait between two requests for the renewal information of a certificate.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// The longest wait after a request for renewal information without a valid answer (RFC 9773, section 4.3.3).
const POLL_BACK_OFF_MAX: Duration = Duration::from_secs(6 * 3600);

/// The latest failed attempts for one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// The number of failed attempts since the last successful one.
    pub failures: u32,
    /// The time of the next attempt, in seconds since the Unix epoch.
    pub next: u64,
    /// The wait from the latest to the next attempt, in seconds.
    pub pause: u64,
    /// Why the latest attempt failed.
    pub error: String,
}

impl Attempts {
    /// The time of the next attempt. If it is further away than `pause`, the attempt is due now: the clock was ahead
    /// when the latest attempt failed.
    #[must_use]
    pub fn next_time(&self, now: SystemTime) -> SystemTime {
        // The bound keeps a wrong file from overflowing the sum.
        let next = UNIX_EPOCH + Duration::from_secs(self.next.min(u64::from(u32::MAX) * 2));
        // A second more, because both numbers are rounded to whole seconds.
        let pause = Duration::from_secs(self.pause.saturating_add(1)).min(BACK_OFF_MAX);
        if next > now + pause { UNIX_EPOCH } else { next }
    }

    /// The failed attempts that are kept in a directory, by the first name of the certificate. A file that is not valid
    /// counts as none: at worst, an attempt is repeated too early.
    #[must_use]
    pub fn load(directory: &Path) -> BTreeMap<Box<str>, Self> {
        let bytes = regular_file::read(&directory.join(FILE), BYTES_MAX).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Writes the failed attempts to the file of the directory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(all: &BTreeMap<Box<str>, Self>, directory: &Path) -> io::Result<()> {
        regular_file::replace(&directory.join(FILE), &serde_json::to_vec_pretty(all)?)
    }
}

/// The period in which an ACME server suggests renewing a certificate (RFC 9773, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalWindow {
    start: SystemTime,
    length: Duration,
}

impl RenewalWindow {
    /// A window; `None` if `end` is not after `start`, which is not valid.
    #[must_use]
    pub fn new(start: SystemTime, end: SystemTime) -> Option<Self> {
        let length = end.duration_since(start).ok()?;
        (!length.is_zero()).then_some(Self { start, length })
    }
}

/// When a certificate is renewed: in the window that its server suggests, but at the latest after nine tenths of its
/// lifetime, so that failed orders can be repeated. Without a window: after two thirds of its lifetime, plus up
/// to a thirtieth. `jitter` (0 to 1) selects the moment, so that certificates that were issued together are not renewed
/// together. `not_before` and `not_after` are in seconds since the Unix epoch.
#[must_use]
pub fn renewal_time(not_before: i64, not_after: i64, window: Option<RenewalWindow>, jitter: f64) -> SystemTime {
    let seconds = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
    let issued = UNIX_EPOCH + Duration::from_secs(seconds(not_before));
    let lifetime = Duration::from_secs(seconds(not_after.saturating_sub(not_before)));
    let jitter = jitter.clamp(0.0, 1.0);
    match window {
        None => issued + lifetime * 2 / 3 + (lifetime / 30).mul_f64(jitter),
        Some(window) => {
            let moment = window.start.checked_add(window.length.mul_f64(jitter));
            let latest = issued + lifetime * 9 / 10;
            moment.unwrap_or(latest).clamp(issued, latest)
        }
    }
}

/// The wait from renewal information to the next request for it: as the server wants, within bounds.
#[must_use]
pub fn poll_interval(retry_after: Duration) -> Duration {
    retry_after.clamp(POLL_INTERVAL_MIN, POLL_INTERVAL_MAX)
}

/// The wait after this many failed requests in a row for renewal information. `jitter` is 0 to 1.
#[must_use]
pub fn poll_back_off(failures: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    back_off(failures, retry_after, jitter).min(POLL_BACK_OFF_MAX)
}

/// The wait after a certificate was issued, before another is ordered for the same names: a third of the issued
/// certificate's lifetime, at least a second and at most an hour. Without this pause, orders would follow each other if
/// the new certificate were due at once, because our clock is ahead or because the certificate lacks a name.
#[must_use]
pub fn pause_after_issue(not_before: i64, not_after: i64) -> Duration {
    let lifetime = u64::try_from(not_after.saturating_sub(not_before)).unwrap_or(0);
    Duration::from_secs((lifetime / 3).clamp(1, 3600))
}

/// The wait after this many failed attempts, and at least the server's `retry_after`, up to a day. `jitter` (0 to 1)
/// adds up to a tenth to the wait that doubles.
#[must_use]
pub fn back_off(failures: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    let doubled = FIRST_BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let wait = doubled.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0);
    wait.max(retry_after.unwrap_or_default()).min(BACK_OFF_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_lifetime() {
        let age = |jitter| {
            let at = renewal_time(1_000_000, 1_000_000 + 90 * 86_400, None, jitter);
            at.duration_since(UNIX_EPOCH).unwrap().as_secs() - 1_000_000
        };
        assert_eq!((age(0.0), age(1.0)), (60 * 86_400, 63 * 86_400));
        assert_eq!(renewal_time(5, 3, None, 1.0), UNIX_EPOCH + Duration::from_secs(5));
    }

    #[test]
    fn a_window_must_end_after_it_starts() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(RenewalWindow::new(at(1), at(2)).is_some());
        assert!(RenewalWindow::new(at(2), at(2)).is_none() && RenewalWindow::new(at(3), at(2)).is_none());
    }

    proptest! {
        #[test]
        fn a_renewal_is_in_the_window_but_leaves_a_tenth_of_the_lifetime(
            lifetime in 0_i64..10_000_000, start in -100_000_000_000_i64..100_000_000_000,
            length in 1_u64..100_000_000_000, jitter in 0.0..=1.0,
        ) {
            let at = |seconds: i64| {
                let distance = Duration::from_secs(seconds.unsigned_abs());
                if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
            };
            let (not_before, start) = (1_000_000_000, at(start));
            let end = start + Duration::from_secs(length);
            let window = RenewalWindow::new(start, end);
            let moment = renewal_time(not_before, not_before + lifetime, window, jitter);
            let (issued, latest) = (at(not_before), at(not_before) + Duration::from_secs(lifetime.cast_unsigned()) * 9 / 10);
            prop_assert!((issued..=latest).contains(&moment));
            prop_assert!((start..=end).contains(&moment) || end < issued || latest < start);
        }
    }

    #[test]
    fn renewal_times_are_spread_over_the_window() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let window = RenewalWindow::new(at(2_000_000), at(2_000_100));
        let moment = |jitter| renewal_time(1_000_000, 9_000_000, window, jitter);
        assert_eq!(
            [0.0, 0.5, 1.0].map(moment),
            [at(2_000_000), at(2_000_050), at(2_000_100)]
        );
    }

    #[test]
    fn polling_follows_retry_after_within_bounds() {
        let seconds = |wanted| poll_interval(Duration::from_secs(wanted)).as_secs();
        assert_eq!([0, 60, 21_600, u64::MAX].map(seconds), [60, 60, 21_600, 86_400]);
        let minutes = |failures| poll_back_off(failures, None, 0.0).as_secs() / 60;
        assert_eq!([1, 2, 9, 10, u32::MAX].map(minutes), [1, 2, 256, 360, 360]);
        assert_eq!(poll_back_off(1, Some(Duration::MAX), 0.0), POLL_BACK_OFF_MAX);
    }

    #[test]
    fn an_issued_certificate_is_followed_by_a_pause() {
        let pause = |lifetime: i64| pause_after_issue(1_000, 1_000 + lifetime).as_secs();
        assert_eq!([90 * 86_400, 10_800, 6, 1, -5].map(pause), [3600, 3600, 2, 1, 1]);
    }

    #[test]
    fn the_back_off_doubles_up_to_a_day_and_follows_retry_after() {
        let minutes = |failures| back_off(failures, None, 0.0).as_secs() / 60;
        assert_eq!([1, 2, 3, 11, 12, u32::MAX].map(minutes), [1, 2, 4, 1024, 1440, 1440]);
        assert_eq!(back_off(1, None, 1.0), Duration::from_secs(66));
        assert_eq!(
            back_off(1, Some(Duration::from_secs(3600)), 0.0),
            Duration::from_secs(3600)
        );
        assert_eq!(back_off(9, Some(Duration::from_secs(1)), 0.0), back_off(9, None, 0.0));
        assert_eq!(back_off(1, Some(Duration::MAX), 0.0), BACK_OFF_MAX);
    }

    #[test]
    fn an_attempt_further_away_than_its_pause_is_due_now() {
        let now = 1_900_000_000;
        let next = |(next, pause)| {
            let attempts = Attempts {
                failures: 1,
                next,
                pause,
                error: String::new(),
            };
            let at = attempts.next_time(UNIX_EPOCH + Duration::from_secs(now));
            at.duration_since(UNIX_EPOCH).unwrap().as_secs()
        };
        let (minute, day) = (60, 86_400);
        for plausible in [(now - 5, minute), (now + minute, minute), (now + day, day)] {
            assert_eq!(next(plausible), plausible.0);
        }
        for too_far in [
            (now + minute + 2, minute),
            (now + day + 1, u64::MAX),
            (u64::MAX, minute),
        ] {
            assert_eq!(next(too_far), 0, "{too_far:?}");
        }
    }

    #[test]
    fn failed_attempts_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Attempts::load(directory.path()).is_empty());
        let attempts = Attempts {
            failures: 2,
            next: 1_900_000_000,
            pause: 120,
            error: "refused".into(),
        };
        let all = BTreeMap::from([("a.example".into(), attempts)]);
        Attempts::save(&all, directory.path()).unwrap();
        assert_eq!(Attempts::load(directory.path()), all);
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(Attempts::load(directory.path()).is_empty());
    }
}
