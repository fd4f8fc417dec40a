//! Passive ejection: takes a server out of use when sessions fail on it.
//!
//! [`Ejection`] is a pure state machine: its methods are the events, and the caller passes in the time. Sessions call
//! it when they connect, fail to connect, or end.

use std::time::Duration;

use tokio::time::Instant;

use super::session_outcome::{SERVED_AFTER, UnservedSessions};
use crate::addr::ClientHost;

/// The back-off of a server that fails (other than in TLS) while no other can be picked, in a pool whose clients wait
/// for the return of servers ([`Pool::waits_for_return`](super::Pool::waits_for_return)); the back-offs of
/// [`EjectLimits`] do not hold then. In any pool, after a trial that ends without a report, the next one is due in this
/// time at the latest. `session/redial.rs` also waits this long before it may connect a client to the same server
/// again.
pub const RETURN_WAIT: Duration = Duration::from_secs(1);

/// When failed connects eject a server, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectLimits {
    /// Failed connects in a row that eject; at least 1.
    pub after: u32,
    /// The first back-off.
    pub first: Duration,
    /// The longest back-off.
    pub longest: Duration,
    /// The largest share of a pool's servers in service that may be ejected at once, in percent, 0 to 100.
    pub percent_max: u32,
    /// Whether a reset by the server counts as a failure even if the client had sent bytes.
    pub on_reset: bool,
}

/// The purpose of a session's lease on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseKind {
    /// An ordinary session.
    Regular,
    /// The one session that tries an ejected server after its back-off.
    Trial,
}

/// The state machine of passive ejection.
///
/// After a back-off *one* session tries the server; others follow once it has connected. So a server that drops packets
/// makes only one session per back-off wait for a connect timeout.
///
/// Sessions that the server did not serve count as failed connects once they came from three client addresses. From the
/// first unserved session on, a connect that works proves nothing: the record is cleared only when a session that
/// connected after the end of that first one is served, or has lasted for [`SERVED_AFTER`]. That it has lasted is
/// noticed when another session connects. Passed checks do not bring such a server back, because they do not see what
/// sessions see.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ejection {
    /// Failed connects in a row while the server was not ejected.
    failures: u32,
    /// Ejections since the record was last cleared, failed trials included: the exponent of the back-off.
    ejections: u32,
    /// `None`: the server is not ejected.
    current: Option<CurrentEjection>,
    unserved: UnservedSessions,
    /// The time of the first connect since a session last ended unserved or inconclusive. Set only while there are
    /// unserved sessions.
    first_connected_at: Option<Instant>,
}

/// The state of a server that is ejected.
#[derive(Clone, Copy, Debug)]
struct CurrentEjection {
    /// From when on a session may claim the trial. While a trial runs: from when on another session may claim it if the
    /// first has not reported by then.
    trial_due_at: Instant,
    /// Whether a session has claimed the trial and has not reported yet.
    is_claimed: bool,
    /// Passed checks in a row since the ejection.
    passed_checks: u32,
}

impl Ejection {
    /// Whether the server is ejected.
    #[must_use]
    pub(super) const fn is_ejected(&self) -> bool {
        self.current.is_some()
    }

    /// Whether nothing is recorded against the server: no failure, and no earlier ejection that lengthens the next
    /// back-off.
    #[must_use]
    pub(super) const fn is_clean(&self) -> bool {
        self.failures == 0 && self.ejections == 0 && self.current.is_none() && self.unserved.is_empty()
    }

    /// Records a failed connect. Returns the back-off if it ejects the server, or keeps it ejected after a trial.
    ///
    /// `permitted`: the pool allows one more ejection (usable servers are left, and not too many are ejected; or
    /// clients wait for the return of servers).
    pub(super) fn record_failure(
        &mut self,
        now: Instant,
        limits: EjectLimits,
        permitted: bool,
        kind: LeaseKind,
    ) -> Option<Duration> {
        if self.current.is_none() {
            self.failures = self.failures.saturating_add(1);
        }
        self.eject_if_due(now, limits, permitted, kind)
    }

    /// Records that a session of this client was not served. The other parameters and the result are those of
    /// [`Self::record_failure`].
    pub(super) fn record_unserved(
        &mut self,
        client: ClientHost,
        now: Instant,
        limits: EjectLimits,
        permitted: bool,
        kind: LeaseKind,
    ) -> Option<Duration> {
        self.first_connected_at = None;
        if self.current.is_none() {
            self.unserved.add(client, now);
        }
        self.eject_if_due(now, limits, permitted, kind)
    }

    /// Ejects the server, or keeps it ejected, if the recorded failures are enough for that. Returns the back-off.
    fn eject_if_due(
        &mut self,
        now: Instant,
        limits: EjectLimits,
        permitted: bool,
        kind: LeaseKind,
    ) -> Option<Duration> {
        let is_due = if self.is_ejected() {
            // A regular session was begun before the server was ejected, in panic, or on a stand-in. Such sessions do
            // not lengthen the back-off, however many of them fail.
            kind == LeaseKind::Trial
        } else {
            permitted && self.failures.saturating_add(self.unserved.countable()) >= limits.after
        };
        if !is_due {
            return None;
        }
        let factor = 1u32.checked_shl(self.ejections).unwrap_or(u32::MAX);
        let back_off = limits.first.saturating_mul(factor).min(limits.longest);
        self.ejections = self.ejections.saturating_add(1);
        self.current = Some(CurrentEjection {
            trial_due_at: add_capped(now, back_off),
            is_claimed: false,
            passed_checks: 0,
        });
        Some(back_off)
    }

    /// Records a connect that worked. Clears the record if it has no unserved sessions, or if a session that connected
    /// after them has lasted for [`SERVED_AFTER`]. Returns whether an ejection ended.
    pub(super) fn record_connect(&mut self, now: Instant, kind: LeaseKind) -> bool {
        // A session that ends unserved or inconclusive resets `first_connected_at`. So if that time is `SERVED_AFTER`
        // ago, the session of that connect has lasted.
        let has_session_lasted = self
            .first_connected_at
            .is_some_and(|connected_at| now >= connected_at + SERVED_AFTER);
        if self.unserved.is_empty() || has_session_lasted {
            return self.clear();
        }
        self.failures = 0;
        self.first_connected_at.get_or_insert(now);
        if let (Some(current), LeaseKind::Trial) = (&mut self.current, kind) {
            current.is_claimed = false;
            current.trial_due_at = add_capped(now, SERVED_AFTER); // the next trial, once this session counts as served
        }
        false
    }

    /// Records that a session was served. That clears the record if the session connected after the first unserved one
    /// had ended. Returns whether an ejection ended.
    pub(super) fn record_served(&mut self, connected_at: Instant) -> bool {
        self.unserved.first_ended_before(connected_at) && self.clear()
    }

    /// Records that a session ended early and proves nothing.
    pub(super) const fn record_inconclusive(&mut self) {
        self.first_connected_at = None;
    }

    fn clear(&mut self) -> bool {
        let was_ejected = self.is_ejected();
        *self = Self::default();
        was_ejected
    }

    /// Records a check result. `rise` passed checks in a row end the ejection, unless there are unserved sessions in
    /// the record. The number of ejections, which lengthens the next back-off, is kept until a connect works. Returns
    /// whether the ejection ended.
    pub(super) fn record_check(&mut self, pass: bool, rise: u32) -> bool {
        let Some(current) = &mut self.current else { return false };
        current.passed_checks = if pass {
            current.passed_checks.saturating_add(1)
        } else {
            0
        };
        let ended = current.passed_checks >= rise && self.unserved.is_empty();
        if ended {
            self.failures = 0;
            self.current = None;
        }
        ended
    }

    /// Whether a session may claim the trial now.
    #[must_use]
    pub(super) fn is_trial_due(&self, now: Instant) -> bool {
        self.current.is_some_and(|current| now >= current.trial_due_at)
    }

    /// When the trial is due; `None`: the server is not ejected.
    #[must_use]
    pub(super) fn trial_due_at(&self) -> Option<Instant> {
        self.current.map(|current| current.trial_due_at)
    }

    /// Claims the one trial after a back-off. Returns whether the caller has it. The claim lasts for `connect_timeout`:
    /// if its holder has not reported by then, another session may claim the trial.
    pub(super) fn claim_trial(&mut self, now: Instant, connect_timeout: Duration) -> bool {
        match &mut self.current {
            Some(current) if now >= current.trial_due_at => {
                current.trial_due_at = add_capped(now, connect_timeout);
                current.is_claimed = true;
                true
            }
            _ => false,
        }
    }

    /// Records that the session with the trial has ended without a report, for example because its client has left. The
    /// next trial is due after [`RETURN_WAIT`] at the latest. Returns whether that is sooner than before.
    pub(super) fn release_trial(&mut self, now: Instant) -> bool {
        match &mut self.current {
            Some(current) if current.is_claimed => {
                current.is_claimed = false;
                let due_at = add_capped(now, RETURN_WAIT);
                let is_sooner = due_at < current.trial_due_at;
                current.trial_due_at = current.trial_due_at.min(due_at);
                is_sooner
            }
            _ => false,
        }
    }
}

/// `now + wait`. A sum that the clock cannot represent is cut to a century from now: `wait` comes from the
/// configuration and must not cause a panic.
fn add_capped(now: Instant, wait: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(wait).unwrap_or_else(|| now + CENTURY)
}

#[cfg(test)]
mod tests;
