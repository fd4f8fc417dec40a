//! Pauses between tries of something that fails.

use std::time::Duration;

use tokio::time::sleep;

/// The first pause, before jitter.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause, before jitter.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses between the tries of one thing. The first is half a second. Each further pause is twice as long as the one
/// before, but half a minute at most. Each is lengthened or shortened by a random jitter of up to 25 %, so that things
/// that have failed at the same time are not tried again at the same time.
#[derive(Debug)]
pub struct BackOff {
    /// The next pause, before jitter.
    next: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl BackOff {
    /// Makes the next pause the first one again. To be called after a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Returns the pause to make before the next try, and lengthens the pause after that.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (2 * pause).min(LONGEST);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// Sleeps for the pause that [`Self::next_pause`] returns.
    pub async fn pause(&mut self) {
        sleep(self.next_pause()).await;
    }
}
