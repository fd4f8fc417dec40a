//! Finds certificates, and lists of revoked certificates, that have expired since the last check.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::words::unix_now;

/// The time of the last check, in seconds since the Unix epoch. A check reports only what has expired since the last
/// one, so each expiry is reported once.
#[derive(Debug)]
pub(super) struct LastExpiryCheck(AtomicI64);

impl Default for LastExpiryCheck {
    /// Now: certificates that have expired before are reported by the code that reads their files.
    fn default() -> Self {
        Self(AtomicI64::new(unix_now()))
    }
}

impl LastExpiryCheck {
    /// Begins the next check. Returns the period since the last one: a certificate whose `not_after` is in that period
    /// has expired since then.
    pub(super) fn advance(&self) -> Range<i64> {
        let now = unix_now();
        self.0.swap(now, Relaxed)..now
    }
}
