//! What picks need of a server, and what they change.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::{AS_CONFIGURED, FAILING, Server};
use crate::pool::candidates::Availability;
use crate::pool::changes::ChangeCounter;
use crate::pool::health::Checked;

impl Server {
    /// The share it was steered to, if that is not the configured one.
    pub(in crate::pool) fn steered_weight(&self) -> Option<u16> {
        Some(self.weight.load(Relaxed)).filter(|weight| *weight != AS_CONFIGURED)
    }

    /// Whether its health lets it be picked.
    pub(in crate::pool) fn availability_by_health(&self, now: Instant) -> Availability {
        let checked = self.checked();
        if checked == Checked::Down {
            return Availability::Unavailable;
        }
        if self.is_ejected() {
            // While the checks still fail, an expired back-off proves nothing.
            let due = !self.has(FAILING) && self.ejection().is_due(now);
            return if due {
                Availability::TrialDue
            } else {
                Availability::Unavailable
            };
        }
        if checked == Checked::Up {
            Availability::Up
        } else {
            Availability::Unchecked
        }
    }

    /// When its back-off is over, if it is ejected.
    pub(in crate::pool) fn trial_due_at(&self) -> Option<Instant> {
        self.is_ejected().then(|| self.ejection().due_at()).flatten()
    }

    /// Whether the session that asks has the trial.
    pub(in crate::pool) fn claim_trial(&self, now: Instant, connect_timeout: Duration) -> bool {
        let claimed = self.ejection().claim_trial(now, connect_timeout);
        if claimed {
            self.subscribers.notify();
        }
        claimed
    }

    /// What part of its share it has now: all of it, unless it came back less than `slow_start` ago.
    pub(in crate::pool) fn percent(&self, now: Instant, slow_start: Duration) -> u16 {
        self.ramp.percent(now, slow_start)
    }

    /// When [`Self::percent`] is another one, by time alone.
    pub(in crate::pool) fn next_percent_at(&self, now: Instant, slow_start: Duration) -> Option<Instant> {
        self.ramp.next_percent_at(now, slow_start)
    }

    /// It came back: its weight grows from a part of it.
    pub(super) fn begin_slow_start(&self) {
        self.ramp.begin();
        self.subscribers.notify();
    }

    /// Increments the counter whenever anything has changed that decides whether and how much it is picked.
    pub(in crate::pool) fn notify_changes(&self, counter: &Arc<ChangeCounter>) {
        self.subscribers.add(counter);
    }

    /// A session has taken a place.
    pub(in crate::pool) fn entered(&self) {
        self.live.fetch_add(1, Relaxed);
    }

    /// It has given it back.
    pub(in crate::pool) fn left(&self) {
        self.live.fetch_sub(1, Relaxed);
    }
}
