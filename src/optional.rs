//! System calls that traffic can do without.
//!
//! Sandboxes (gVisor), seccomp profiles and old kernels refuse calls with EPERM, EACCES, ENOSYS or EINVAL. A call that
//! only makes traffic faster or safer must not stop it: its failure is logged once and the process goes on without it.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A system call that traffic can do without; make it a `static`.
#[derive(Debug)]
pub struct OptionalCall {
    name: &'static str,
    loss: &'static str,
    is_logged: AtomicBool,
}

impl OptionalCall {
    /// The call with its option, as in `setsockopt(TCP_NODELAY)`, and what is lost without it, for the log.
    #[must_use]
    pub const fn new(name: &'static str, loss: &'static str) -> Self {
        Self {
            name,
            loss,
            is_logged: AtomicBool::new(false),
        }
    }

    /// Takes the result of a call. Returns whether it succeeded.
    pub fn try_result<E: Display>(&self, result: Result<(), E>) -> bool {
        result.inspect_err(|error| self.refused(error)).is_ok()
    }

    /// The system refuses the call. The first time in the life of the process this is logged.
    pub fn refused(&self, error: &impl Display) {
        if !self.is_logged.swap(true, Relaxed) {
            tracing::warn!(call = self.name, %error, loss = self.loss, "the system refuses a call: going on without it");
        }
    }
}
