//! Optional system calls: traffic works without them.
//!
//! Sandboxes (gVisor), seccomp profiles and old kernels fail calls with EPERM, EACCES, ENOSYS or EINVAL. A call that
//! only makes traffic faster or safer must not stop it: its failure is logged once, and the process continues without
//! it.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// An optional system call. Declare it as a `static`, so that its failure is logged once.
#[derive(Debug)]
pub struct OptionalCall {
    name: &'static str,
    loss: &'static str,
    was_logged: AtomicBool,
}

impl OptionalCall {
    /// `name` is the call with its option, as in `setsockopt(TCP_NODELAY)`; `loss` says what is lost without it. Both
    /// are logged.
    #[must_use]
    pub const fn new(name: &'static str, loss: &'static str) -> Self {
        Self {
            name,
            loss,
            was_logged: AtomicBool::new(false),
        }
    }

    /// Records the result of a call. Returns whether it succeeded.
    pub fn record_result<E: Display>(&self, result: Result<(), E>) -> bool {
        result.inspect_err(|error| self.record_failure(error)).is_ok()
    }

    /// Records that the call failed. Logs the first failure in the life of the process.
    pub fn record_failure(&self, error: &impl Display) {
        if !self.was_logged.swap(true, Relaxed) {
            tracing::warn!(call = self.name, %error, loss = self.loss, "an optional system call failed, continuing without it");
        }
    }
}
