//! A flag that stops the threads of a test.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Sets the flag when it drops, also when the test fails: otherwise the thread scope would wait forever.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
