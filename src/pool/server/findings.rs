//! What checks have found out about a server, besides its state.

use std::time::Duration;

use tokio::time::Instant;

use super::super::health::{CheckState, CheckVerdict};
use super::{STAND_IN, Server};

impl Server {
    /// Whether its checks have found it down, or with a wrong role. Not if they have only been refused since they
    /// began: then the server lives, although it is out of use.
    #[must_use]
    pub fn is_found_down(&self) -> bool {
        self.check_state() == CheckState::Down && self.checks.lock().rise_fall.verdict() != CheckVerdict::Unchecked
    }

    /// Whether it is up, or out of use only because its role is wrong, it is behind, or it refuses its checks. A server
    /// without checks is up. Whether it is ejected or in use is another question.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.checks.lock().rise_fall.is_healthy()
    }

    /// Whether a check has passed, or has found that the server is a stand-in, at most this time ago, and it was not
    /// found later that the server must not be used, for example because of its role.
    #[must_use]
    pub fn passed_within(&self, time: Duration) -> bool {
        self.checks.lock().passed_at.is_some_and(|at| at.elapsed() <= time)
    }

    /// When a check last found that it serves sessions; if no check has, when its checks began.
    #[must_use]
    pub fn seen_serving_at(&self) -> Instant {
        self.checks.lock().seen_serving_at
    }

    /// How long it was behind its primary at the latest check; `None`: it is not a replica, or the check did not find
    /// that out.
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        self.checks.lock().lag
    }

    /// Sets how long it is behind its primary.
    pub(in crate::pool) fn set_lag(&self, lag: Option<Duration>) {
        self.checks.lock().lag = lag;
    }

    /// Whether it is the primary of a pool of replicas that falls back to its primary.
    #[must_use]
    pub fn is_stand_in(&self) -> bool {
        self.has(STAND_IN)
    }

    /// Sets [`Self::is_stand_in`].
    pub fn set_stand_in(&self, is_stand_in: bool) {
        self.set_flag(STAND_IN, is_stand_in);
    }

    /// Records that a check has just found that the server is still a stand-in. [`Self::passed_within`] counts this as
    /// a passed check, so that the server is used for a while even if it refuses its next checks.
    pub fn confirm_stand_in(&self) {
        self.checks.lock().passed_at = Some(Instant::now());
    }
}
