//! Servers that take no sessions for the moment, as those that restart, and the clients that wait for their return.

use std::time::Duration;

use tokio::time::Instant;

use super::candidates::CandidateSet;
use super::{EjectLimits, Lease, Member, Pool, ServerId};

/// How long a server takes no sessions when it has failed one and clients wait for its return; after that, one session tries it.
const REST: Duration = Duration::from_secs(1);

/// What follows when no other server is left to a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Whether the client may wait until a server is back, also one that has failed it.
    pub may_wait: bool,
    /// The back-off, if that ejected the server.
    pub back_off: Option<Duration>,
}

impl Pool {
    /// Records that a server said to a session that it takes none now. Returns the back-off if that ejects it, within the limits of
    /// [`Self::connect_failed`]: one such answer is enough.
    pub fn session_refused(&self, lease: &Lease, now: Instant) -> Option<Duration> {
        let limits = EjectLimits {
            after: 1,
            ..self.rules.eject
        };
        self.record_failure(lease, now, |ejection, permitted| {
            ejection.record_failure(now, limits, permitted, lease.kind())
        })
    }

    /// Whether nothing but the trial of ejected servers is left.
    #[must_use]
    pub fn is_on_trial(&self, now: Instant) -> bool {
        self.snapshot(now).set.has_only_trials()
    }

    /// Whether a server could be picked that is not among these.
    pub(super) fn can_pick_besides(&self, tried: &[ServerId], now: Instant) -> bool {
        let set = CandidateSet::new(&self.members.load(), &self.rules, now, |id| tried.contains(&id));
        !set.candidates.is_empty()
    }

    /// Whether clients wait for the return of servers. They do not if no server is limited: then the queue is never used.
    fn waits_for_return(&self) -> bool {
        let is_limited = |member: &Member| member.sessions_max().is_some();
        self.rules.waits_for_return && self.members.load().iter().any(is_limited)
    }

    /// Whether clients wait for the return of a server that is not among these.
    pub(super) fn has_resting(&self, tried: &[ServerId]) -> bool {
        let is_awaited =
            |member: &Member| member.is_in_service() && member.is_resting() && !tried.contains(&member.id());
        self.waits_for_return() && self.members.load().iter().any(is_awaited)
    }

    /// A server has failed a client that has tried these servers, among them this one. If no other could be picked, and clients
    /// wait for the return of servers, it is ejected for a second, so that all of them wait.
    pub fn rest(&self, lease: &Lease, tried: &[ServerId], now: Instant) -> Rest {
        if !self.waits_for_return() || self.can_pick_besides(tried, now) {
            return Rest::default();
        }
        let limits = EjectLimits {
            after: 1,
            first: REST,
            longest: REST,
            ..self.rules.eject
        };
        let back_off = lease
            .server()
            .record_failure(|ejection| ejection.record_failure(now, limits, true, lease.kind()));
        Rest {
            // A panic goes on to pick servers that are ejected.
            may_wait: !self.is_panicking(now) && self.has_resting(&[]),
            back_off,
        }
    }
}
