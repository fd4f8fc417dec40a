//! When a certificate is ordered again, and when an attempt that has failed is repeated.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::regular_file;

/// The name of the file with the failed attempts.
const FILE: &str = "attempts.json";

/// The time after the first failed attempt. It doubles with each further one.
const FIRST_BACK_OFF: Duration = Duration::from_secs(60);

/// The longest time after a failed attempt.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(86_400);

/// The latest failed attempts for one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// How many have failed since the last that succeeded.
    pub failures: u32,
    /// The time of the next one, in seconds since the Unix epoch.
    pub next: u64,
    /// Why the latest failed.
    pub error: String,
}

impl Attempts {
    /// The time of the next attempt.
    #[must_use]
    pub fn next_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.next.min(u64::from(u32::MAX) * 2))
    }

    /// The failed attempts that are kept in a folder, by the first name of the certificate. A file that is not valid counts
    /// as none: then an attempt is repeated too early at worst.
    #[must_use]
    pub fn load(folder: &Path) -> BTreeMap<Box<str>, Self> {
        let bytes = std::fs::read(folder.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Keeps them in the folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(all: &BTreeMap<Box<str>, Self>, folder: &Path) -> io::Result<()> {
        regular_file::replace(&folder.join(FILE), &serde_json::to_vec_pretty(all)?)
    }
}

/// When a certificate is ordered again: after two thirds of its lifetime, and up to a thirtieth of it later, so that
/// certificates that were issued together are not renewed together. `jitter` is 0 to 1.
#[must_use]
pub fn renewal_time(not_before: i64, not_after: i64, jitter: f64) -> SystemTime {
    let seconds = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
    let lifetime = Duration::from_secs(seconds(not_after.saturating_sub(not_before)));
    let age = lifetime * 2 / 3 + (lifetime / 30).mul_f64(jitter.clamp(0.0, 1.0));
    UNIX_EPOCH + Duration::from_secs(seconds(not_before)) + age
}

/// The time after a certificate was issued for so many seconds, in which none for the same names is ordered: an hour, at most a
/// third of that time, at least a second. Without it orders would follow each other if one that was issued were due at once,
/// because our clock is ahead, or because it is not for all names.
#[must_use]
pub fn pause_after_issue(not_before: i64, not_after: i64) -> Duration {
    let lifetime = u64::try_from(not_after.saturating_sub(not_before)).unwrap_or(0);
    Duration::from_secs((lifetime / 3).clamp(1, 3600))
}

/// The time after this many failed attempts, at least until `retry_after`, which the server says. `jitter` is 0 to 1.
#[must_use]
pub fn back_off(failures: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    let doubled = FIRST_BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let own = doubled
        .mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0)
        .min(LONGEST_BACK_OFF);
    own.max(retry_after.unwrap_or_default().min(LONGEST_BACK_OFF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_lifetime() {
        let age = |jitter| {
            let at = renewal_time(1_000_000, 1_000_000 + 90 * 86_400, jitter);
            at.duration_since(UNIX_EPOCH).unwrap().as_secs() - 1_000_000
        };
        assert_eq!((age(0.0), age(1.0)), (60 * 86_400, 63 * 86_400));
        assert_eq!(renewal_time(5, 3, 1.0), UNIX_EPOCH + Duration::from_secs(5));
    }

    #[test]
    fn after_a_certificate_was_issued_there_is_a_pause() {
        let pause = |lifetime: i64| pause_after_issue(1_000, 1_000 + lifetime).as_secs();
        assert_eq!([90 * 86_400, 10_800, 6, 1, -5].map(pause), [3600, 3600, 2, 1, 1]);
    }

    #[test]
    fn the_back_off_doubles_up_to_a_day_and_obeys_the_server() {
        let minutes = |failures| back_off(failures, None, 0.0).as_secs() / 60;
        assert_eq!([1, 2, 3, 11, 12, u32::MAX].map(minutes), [1, 2, 4, 1024, 1440, 1440]);
        assert_eq!(back_off(1, None, 1.0), Duration::from_secs(66));
        assert_eq!(
            back_off(1, Some(Duration::from_secs(3600)), 0.0),
            Duration::from_secs(3600)
        );
        assert_eq!(back_off(9, Some(Duration::from_secs(1)), 0.0), back_off(9, None, 0.0));
        assert_eq!(back_off(1, Some(Duration::MAX), 0.0), LONGEST_BACK_OFF);
    }

    #[test]
    fn failed_attempts_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Attempts::load(folder.path()).is_empty());
        let attempts = Attempts {
            failures: 2,
            next: 1_900_000_000,
            error: "refused".into(),
        };
        let all = BTreeMap::from([("a.example".into(), attempts)]);
        Attempts::save(&all, folder.path()).unwrap();
        assert_eq!(Attempts::load(folder.path()), all);
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Attempts::load(folder.path()).is_empty());
    }
}
