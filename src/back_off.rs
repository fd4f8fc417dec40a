//! Pauses between tries of something that fails.

use std::time::Duration;

use tokio::time::sleep;

/// The first pause, before jitter.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause, before jitter.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that double from half a second to half a minute, each with a jitter of plus or minus 25 %.
#[derive(Debug)]
pub struct BackOff {
    next: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl BackOff {
    /// Begins with the first pause again. To be called after a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The pause before the next try.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (2 * pause).min(LONGEST);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// Waits before the next try.
    pub async fn pause(&mut self) {
        sleep(self.next_pause()).await;
    }
}
