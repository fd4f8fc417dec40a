//! Finds certificates that have expired since the last check.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::words::unix_now;

/// When the files in force were last looked at for expiry, in seconds since the Unix epoch: each expiry is reported
/// once.
#[derive(Debug)]
pub(super) struct LastExpiryCheck(AtomicI64);

impl Default for LastExpiryCheck {
    /// Now: certificates that have already expired are reported when the files are read.
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
