//! A flag that stops the threads of a test.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Tells threads to stop when it drops, so also when the test fails: the scope would wait for them for ever.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
