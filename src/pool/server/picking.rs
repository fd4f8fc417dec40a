//! The part of a server's state that a pick reads or changes.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use tokio::time::Instant;

use super::{EJECTED, FAILING, NOT_SET, SUSPENDED, Server};
use crate::pool::changes::ChangeCounter;
use crate::pool::health::{Availability, CheckState};
use crate::pool::live_count::LiveCount;

impl Server {
    /// The weight that an operator has set; `None`: none has.
    pub(in crate::pool) fn weight_override(&self) -> Option<u16> {
        Some(self.weight_override.load(Relaxed)).filter(|weight| *weight != NOT_SET)
    }

    /// Whether it may be picked, as far as its health decides.
    pub(in crate::pool) fn availability_by_health(&self, now: Instant) -> Availability {
        let state = self.check_state();
        let has_unknown_role = state == CheckState::Unchecked && self.is_unfit();
        if state == CheckState::Down || has_unknown_role || self.is_suspended() {
            return Availability::Unavailable;
        }
        if self.is_ejected() {
            // No trial if the latest check failed: the session would probably fail too.
            let is_due = !self.has(FAILING) && self.ejection.lock().is_trial_due(now);
            return if is_due {
                Availability::TrialDue
            } else {
                Availability::Unavailable
            };
        }
        if state == CheckState::Up {
            Availability::Up
        } else {
            Availability::Unchecked
        }
    }

    /// Whether it is ejected or suspended, but may take sessions again at any time: it is not down, and its role is not
    /// wrong.
    pub(in crate::pool) fn may_return_at_any_time(&self) -> bool {
        self.check_state() != CheckState::Down && !self.is_unfit() && self.has(EJECTED | SUSPENDED)
    }

    /// Whether it may be picked as the stand-in for servers of another role. An ejection does not prevent this, because
    /// no other server is left.
    pub(in crate::pool) fn may_stand_in(&self) -> bool {
        self.is_stand_in() && !self.is_suspended()
    }

    /// When its trial is due, if it is ejected.
    pub(in crate::pool) fn trial_due_at(&self) -> Option<Instant> {
        self.is_ejected().then(|| self.ejection.lock().trial_due_at()).flatten()
    }

    /// Claims the trial. Returns whether the caller has it.
    pub(in crate::pool) fn claim_trial(&self, now: Instant, connect_timeout: Duration) -> bool {
        let claimed = self.ejection.lock().claim_trial(now, connect_timeout);
        if claimed {
            self.subscribers.notify();
        }
        claimed
    }

    /// Records that the session with the trial has ended without a report of success or failure.
    pub(in crate::pool) fn release_trial(&self) {
        let is_sooner = self.ejection.lock().release_trial(Instant::now());
        if is_sooner {
            self.subscribers.notify();
        }
    }

    /// The percentage of its weight that it has now: 100, unless it came back less than `slow_start` ago.
    pub(in crate::pool) fn slow_start_percent(&self, now: Instant, slow_start: Duration) -> u16 {
        self.slow_start.percent(now, slow_start)
    }

    /// When [`Self::slow_start_percent`] changes next by time alone; `None`: never.
    pub(in crate::pool) fn next_percent_at(&self, now: Instant, slow_start: Duration) -> Option<Instant> {
        self.slow_start.next_percent_at(now, slow_start)
    }

    /// To be called when the server has come back: its weight grows from a small part.
    pub(super) fn begin_slow_start(&self) {
        self.slow_start.begin();
        self.subscribers.notify();
    }

    /// From now on, increments the counter after each change of the state that a snapshot is built from.
    pub(in crate::pool) fn subscribe(&self, counter: &Arc<ChangeCounter>) {
        self.subscribers.add(counter);
    }

    /// This server, with the session count of a server of the pool that was created before it at the same address.
    #[must_use]
    pub(in crate::pool) fn sharing_count(self, live_count: Arc<LiveCount>) -> Self {
        Self {
            live: live_count.get(),
            own_live: Some(AtomicU32::new(0)),
            live_count,
            ..self
        }
    }

    /// The count of sessions at its address.
    pub(in crate::pool) fn shared_count(&self) -> &Arc<LiveCount> {
        &self.live_count
    }

    /// The counter that [`Self::live`] reads. The reference must not be used after the server is dropped.
    pub(in crate::pool) fn live_counter(&self) -> &'static AtomicU32 {
        self.live
    }

    /// The open sessions on this server alone. [`Self::live`] also counts those on the other servers of the pool that
    /// have its address.
    ///
    /// The number may be wrong by the sessions that begin or end on these servers during the call.
    #[must_use]
    pub fn own_live(&self) -> u32 {
        match &self.own_live {
            Some(own) => own.load(Relaxed),
            None => self
                .live()
                .saturating_sub(self.live_count.not_of_first_server().load(Relaxed)),
        }
    }

    /// Counts a session that begins.
    pub(in crate::pool) fn add_session(&self) {
        self.live.fetch_add(1, Relaxed);
        self.add_own(1);
    }

    /// Adds to the count of this server's own sessions, if it has one. The first server at an address has none, so that
    /// a session on nearly any server writes only one shared number.
    fn add_own(&self, sessions: i32) {
        if let Some(own) = &self.own_live {
            for count in [own, self.live_count.not_of_first_server()] {
                count.fetch_add(sessions.cast_unsigned(), Relaxed); // wraps, so that a negative number is subtracted
            }
        }
    }

    /// Counts a session that begins, if there are fewer than `max` at its address. Returns whether it did.
    pub(in crate::pool) fn add_session_below(&self, max: u32) -> bool {
        let next = |live| (live < max).then_some(live + 1);
        let has_room = self.live.fetch_update(Relaxed, Relaxed, next).is_ok();
        if has_room {
            self.add_own(1);
        }
        has_room
    }

    /// Stops counting a session that was not begun after all. Wakes the queue, because another server at the address
    /// may have seemed full meanwhile. Unlike [`Self::end_session`], this may be called while the queue is served.
    pub(in crate::pool) fn remove_session(&self) {
        self.add_own(-1);
        self.live.fetch_sub(1, SeqCst);
        if let Some(queue) = &self.queue {
            queue.notify_change();
        }
    }

    /// Counts a session that ends, and gives its place to the first in line that may have it.
    pub(in crate::pool) fn end_session(&self) {
        self.add_own(-1);
        // `SeqCst`: ordered before the queue is asked whether clients wait, so that no wake-up is lost.
        self.live.fetch_sub(1, SeqCst);
        if let Some(queue) = &self.queue {
            queue.place_freed();
        }
    }
}

#[cfg(test)]
impl Server {
    /// This server with this many open sessions.
    pub(in crate::pool) fn with_live(self, live: u32) -> Self {
        self.live.store(live, Relaxed);
        self
    }
}
