//! What has expired since somebody last looked.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::words::unix_now;

/// When what is in force was last looked at, in seconds since the Unix epoch: what expires is told once.
#[derive(Debug)]
pub(super) struct LastLook(AtomicI64);

impl Default for LastLook {
    /// Now: what has expired already is told by those who read the files.
    fn default() -> Self {
        Self(AtomicI64::new(unix_now()))
    }
}

impl LastLook {
    /// Looks now. Returns the time since the last look: what was valid until a moment in it has expired since.
    pub(super) fn look(&self) -> Range<i64> {
        let now = unix_now();
        self.0.swap(now, Relaxed)..now
    }
}
