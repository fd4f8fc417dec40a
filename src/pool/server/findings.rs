//! What checks have found out about a server, besides its state.

use std::time::Duration;

use super::Server;

impl Server {
    /// Whether it answers its checks, whatever its role, or has none. Whether it is ejected or in use is another question.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.lock_checks().rise_fall.is_healthy()
    }

    /// Whether a check has passed within this time, and found no other role since.
    #[must_use]
    pub fn passed_within(&self, time: Duration) -> bool {
        self.lock_checks().passed_at.is_some_and(|at| at.elapsed() <= time)
    }

    /// How long it was behind its primary at the latest check; `None`: it is no replica, or does not tell.
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        self.lock_checks().lag
    }

    /// Sets how long it is behind its primary.
    pub(in crate::pool) fn set_lag(&self, lag: Option<Duration>) {
        self.lock_checks().lag = lag;
    }
}
