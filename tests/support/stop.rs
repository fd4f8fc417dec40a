//! A flag that stops the threads of a test.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Sets the flag when this is dropped, also if the test fails: otherwise the scope would wait for its threads forever.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
