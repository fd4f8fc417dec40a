//! The time between a failure of a source and the next try.

use std::time::Duration;

use tokio::time::sleep;

/// The first such time, before jitter. It doubles with each failure without a list in between.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// The longest such time.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The times between failures and next tries.
pub(super) struct BackOff(Duration);

impl BackOff {
    pub(super) fn new() -> Self {
        Self(RETRY_FIRST)
    }

    /// Waits until the next try: this time plus or minus 25 %.
    pub(super) async fn wait(&mut self) {
        sleep(self.0.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        self.0 = (2 * self.0).min(RETRY_MAX);
    }
}
