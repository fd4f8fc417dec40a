//! What follows when a server has failed a client: the server may be ejected, and the client may wait for the return of
//! a server, such as one that restarts.

use std::time::Duration;

use tokio::time::Instant;

use super::candidates::CandidateSet;
use super::ejection::RETURN_WAIT;
use super::{EjectLimits, Lease, Member, Pool, ServerId};

/// How a server has failed a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerFailure {
    /// It could not be connected to.
    Connect,
    /// It could be connected to, but TLS failed. That is more likely a mistake in the configuration than a restart, so
    /// nobody waits for its return.
    Tls,
    /// It said that it takes no sessions now. One such answer ejects it, if the rules of ejection allow that.
    Refusal,
}

/// The consequences of a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AfterFailure {
    /// Whether the client may wait until a server is back, even one that has failed this client.
    pub may_wait: bool,
    /// The back-off, if the failure ejected the server.
    pub back_off: Option<Duration>,
}

impl Pool {
    /// Records that the server of this lease has failed its client. `tried`: the servers that have failed the client,
    /// including this one.
    ///
    /// If no other server can be picked, and clients wait for the return of servers, this one is ejected for
    /// [`RETURN_WAIT`], so that all clients wait. Otherwise, and always after [`ServerFailure::Tls`], the usual limits
    /// hold: the last usable server is not ejected, nor are more than [`EjectLimits::percent_max`] of the servers in
    /// service.
    pub fn record_failure(
        &self,
        lease: &Lease,
        tried: &[ServerId],
        failure: ServerFailure,
        now: Instant,
    ) -> AfterFailure {
        lease.note_failed();
        let mut limits = self.rules.eject;
        if failure == ServerFailure::Refusal {
            limits.after = 1;
        }
        if failure == ServerFailure::Tls || !self.waits_for_return() || self.can_pick_besides(tried, now) {
            let back_off = self.update_ejection(lease, now, |ejection, permitted| {
                ejection.record_failure(now, limits, permitted, lease.kind())
            });
            return AfterFailure {
                may_wait: false,
                back_off,
            };
        }
        let limits_until_return = EjectLimits {
            after: 1,
            first: RETURN_WAIT,
            longest: RETURN_WAIT,
            ..limits
        };
        let is_permitted = true; // even for the last usable server
        let back_off = lease
            .server()
            .record_failure(|ejection| ejection.record_failure(now, limits_until_return, is_permitted, lease.kind()));
        AfterFailure {
            // In panic, ejected servers are picked too, so that nobody waits.
            may_wait: !self.is_panicking(now) && self.waits_for_return_besides(&[]),
            back_off,
        }
    }

    /// Whether only ejected servers whose trial is due can be picked.
    #[must_use]
    pub fn is_on_trial(&self, now: Instant) -> bool {
        self.snapshot(now).set.has_only_trials()
    }

    /// Whether clients of the pool wait for the return of servers. They do not if no server is limited, because the
    /// queue is never used then.
    #[must_use]
    pub fn waits_for_return(&self) -> bool {
        let is_limited = |member: &Member| member.sessions_max().is_some();
        self.rules.waits_for_return && self.members.load().iter().any(is_limited)
    }

    /// Whether a server other than those in `tried` could be picked.
    #[must_use]
    pub fn can_pick_besides(&self, tried: &[ServerId], now: Instant) -> bool {
        let set = CandidateSet::new(&self.members.load(), &self.rules, now, |id| tried.contains(&id));
        !set.candidates.is_empty()
    }

    /// Whether clients wait for the return of a server other than those in `tried`.
    pub(super) fn waits_for_return_besides(&self, tried: &[ServerId]) -> bool {
        let is_awaited = |member: &Member| {
            member.is_in_service() && member.may_return_at_any_time() && !tried.contains(&member.id())
        };
        self.waits_for_return() && self.members.load().iter().any(is_awaited)
    }
}
