//! Publishes copies of a server's locked fields, so that they can be read without the lock.

use std::sync::atomic::Ordering::Relaxed;

use super::{DOWN_FOR_LAG, EJECTED, FAILING, HAS_FAILURES, SUSPENDED, Server, UNFIT};
use crate::pool::ejection::Ejection;
use crate::pool::health::CheckRecord;

impl Server {
    pub(super) fn publish_checks(&self, checks: &CheckRecord) {
        let state = checks.rise_fall.state() as u8;
        let changes = [
            self.check_state.swap(state, Relaxed) != state,
            self.store_flag(FAILING, checks.rise_fall.is_failing()),
            self.store_flag(UNFIT, checks.rise_fall.is_unfit()),
            self.store_flag(DOWN_FOR_LAG, checks.rise_fall.is_down_for_lag()),
            self.store_flag(SUSPENDED, checks.rise_fall.is_suspended()),
        ];
        // Notify only after everything is stored: otherwise a subscriber could see `Down` without `DOWN_FOR_LAG`, as if
        // a server that only lags had failed.
        if changes.contains(&true) {
            self.subscribers.notify();
        }
    }

    pub(super) fn publish_ejection(&self, ejection: &Ejection) {
        self.set_flag(HAS_FAILURES, !ejection.is_clean());
        self.set_flag(EJECTED, ejection.is_ejected());
        if ejection.is_ejected() {
            self.subscribers.notify(); // the time of the trial may have changed
        }
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    /// Sets or clears a flag, and notifies the subscribers if it changed. They are not notified of [`HAS_FAILURES`],
    /// which does not decide whether the server may be picked.
    pub(super) fn set_flag(&self, flag: u16, value: bool) {
        if self.store_flag(flag, value) && flag != HAS_FAILURES {
            self.subscribers.notify();
        }
    }

    /// Sets or clears a flag. Returns whether it changed.
    fn store_flag(&self, flag: u16, value: bool) -> bool {
        let before = if value {
            self.flags.fetch_or(flag, Relaxed)
        } else {
            self.flags.fetch_and(!flag, Relaxed)
        };
        (before & flag != 0) != value
    }
}
