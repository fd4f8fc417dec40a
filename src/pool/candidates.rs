//! The servers that may be picked: the usable servers of the best tier that has usable servers, but those without a
//! check result only if there are no others (or in panic); if no tier has any, the stand-ins.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::time::Instant;

use super::ejection::LeaseKind;
use super::health::{Availability, CheckState};
use super::{Member, PoolRules, Server, ServerId};

/// A server that may be picked.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) server: Arc<Server>,
    /// The count of open sessions of `server`. This is a copy of the reference in `server`, so that a scan reads one
    /// cache line less for each candidate. Although it is `'static`, it is valid only as long as `server` is held.
    live: &'static AtomicU32,
    /// Its index in the pool's list of servers.
    pub(super) index: usize,
    /// Its weight: 1 to 256. In a pool with slow start, weights are in hundredths: 10 (10 % of weight 1) to 25,600.
    pub(super) weight: u16,
    /// XXH3-64 of its identity.
    pub(super) identity_hash: u64,
    /// See [`MemberConfig::sessions_max`](super::MemberConfig::sessions_max).
    pub(super) sessions_max: Option<NonZeroU32>,
    /// Whether it is an ejected server whose trial is due. Outside of panic, a session must claim that trial to
    /// get the server.
    is_trial: bool,
}

impl Candidate {
    fn new(index: usize, member: &Member, is_trial: bool) -> Self {
        Self {
            live: member.live_counter(),
            server: Arc::clone(member),
            index,
            weight: member.weight(),
            identity_hash: member.identity_hash(),
            sessions_max: member.sessions_max(),
            is_trial,
        }
    }

    /// Its open sessions now, over all workers.
    #[inline] // a call for each candidate would double the cost of `least-conn`
    pub(super) fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// Whether its session limit allows another session.
    pub(super) fn has_room(&self) -> bool {
        self.sessions_max.is_none_or(|max| self.live() < max.get())
    }

    /// Counts another session if the session limit allows one. Returns whether it did.
    pub(super) fn try_add_session(&self) -> bool {
        match self.sessions_max {
            Some(max) => self.server.add_session_below(max.get()),
            None => {
                self.server.add_session();
                true
            }
        }
    }
}

/// The candidates at one instant, and other values derived from the same states of the servers.
#[derive(Debug, Default)]
pub(super) struct CandidateSet {
    pub(super) candidates: Vec<Candidate>,
    /// The first tier with a server that is up.
    pub(super) best_tier: Option<u8>,
    /// Whether a server of the pool has a session limit.
    pub(super) is_limited: bool,
    /// The tier whose unhealthy servers are used, too, because too few of its servers are healthy; `None`: no panic.
    pub(super) panic_tier: Option<u8>,
    /// Whether the candidates belong to `panic_tier`. If so, sessions get ejected servers without a trial. If not,
    /// there is no panic, or all servers of that tier that panic may use are excluded.
    in_panic: bool,
    /// Whether only stand-ins can be picked. The candidates are the stand-ins; there may be none.
    pub(super) are_stand_ins: bool,
    /// The earliest instant at which the passing of time alone may change this set; `None`: there is none.
    expires_at: Option<Instant>,
}

impl CandidateSet {
    /// The candidates among these servers, without the excluded ones.
    ///
    /// A lower tier number is preferred. Within a tier that is not in panic, servers that are up are preferred to those
    /// without a check result. An ejected server whose trial is due counts as if it was not ejected. If no server can
    /// be picked, the candidates are the stand-ins (see [`Member::may_stand_in`]).
    pub(super) fn new(
        members: &[Member],
        rules: &PoolRules,
        now: Instant,
        excluded: impl Fn(ServerId) -> bool,
    ) -> Self {
        let availability: Vec<_> = members.iter().map(|member| member.availability(now)).collect();
        let panic_tier = panic_tier(members, &availability, rules);
        let mut candidates = Vec::new();
        // Lower is preferred: first the tier, then whether the server is unchecked.
        let mut best = (u8::MAX, true);
        for (index, member) in members.iter().enumerate() {
            let tier = member.priority();
            let (is_usable, is_unchecked) = if panic_tier == Some(tier) {
                (member.is_usable_in_panic(), false)
            } else {
                let is_available = availability[index] != Availability::Unavailable;
                (is_available, member.check_state() == CheckState::Unchecked)
            };
            let preference = (tier, is_unchecked);
            if !is_usable || preference > best || excluded(member.id()) {
                continue;
            }
            if preference < best {
                candidates.clear();
                best = preference;
            }
            let is_trial = availability[index] == Availability::TrialDue;
            candidates.push(Candidate::new(index, member, is_trial));
        }
        let are_stand_ins = candidates.is_empty();
        if are_stand_ins {
            let stand_ins = members.iter().enumerate().filter(|(_, member)| member.may_stand_in());
            let stand_ins = stand_ins.filter(|(_, member)| !excluded(member.id()));
            candidates.extend(stand_ins.map(|(index, member)| Candidate::new(index, member, false)));
        }
        let up = (0..members.len()).filter(|index| availability[*index] == Availability::Up);
        let trials = members.iter().filter_map(|member| member.trial_due_at());
        let mut set = Self {
            candidates,
            best_tier: up.map(|index| members[index].priority()).min(),
            is_limited: members.iter().any(|member| member.sessions_max().is_some()),
            panic_tier,
            in_panic: panic_tier == Some(best.0),
            are_stand_ins,
            expires_at: trials.filter(|due| *due > now).min(),
        };
        set.apply_slow_start(rules, now);
        set
    }

    /// Reduces the weights of servers in slow start. All weights become hundredths, so that a percentage of a weight is
    /// exact.
    fn apply_slow_start(&mut self, rules: &PoolRules, now: Instant) {
        let Some(slow_start) = rules.slow_start else { return };
        for candidate in &mut self.candidates {
            candidate.weight *= candidate.server.slow_start_percent(now, slow_start); // at most 256 * 100
            let next = candidate.server.next_percent_at(now, slow_start);
            self.expires_at = self.expires_at.into_iter().chain(next).min();
        }
    }

    /// Whether a session gets a server only with a trial: there are candidates, they are not used in panic, and each is
    /// an ejected server whose trial is due.
    pub(super) fn has_only_trials(&self) -> bool {
        !self.candidates.is_empty() && !self.in_panic && self.candidates.iter().all(|candidate| candidate.is_trial)
    }

    /// The earliest instant at which the passing of time alone may change this set; `None`: there is none.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.expires_at
    }

    /// Whether the set has not expired. It also counts as valid at an instant before it was built: a session that read
    /// the clock a little earlier may use a set that other sessions use already.
    pub(super) fn is_valid_at(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// Returns the kind of lease that a session gets on this candidate. If the session needs its trial, this claims
    /// the trial. `None`: the session gets no lease, because the trial cannot be claimed any more: usually another
    /// session has claimed it.
    pub(super) fn admit(&self, candidate: &Candidate, rules: &PoolRules, now: Instant) -> Option<LeaseKind> {
        if self.in_panic || !candidate.is_trial {
            return Some(LeaseKind::Regular);
        }
        let claimed = candidate.server.claim_trial(now, rules.connect_timeout);
        claimed.then_some(LeaseKind::Trial)
    }
}

/// The first tier with a usable server, if its percentage of healthy servers is below the panic threshold. If no server
/// is usable, the first tier with a server that panic may use is considered instead.
///
/// Servers without a check result count as healthy, unless they are ejected or must have a role that is not known yet.
fn panic_tier(members: &[Member], availability: &[Availability], rules: &PoolRules) -> Option<u8> {
    let threshold = usize::from(rules.panic_threshold?);
    let all = || members.iter().zip(availability);
    let usable = all().filter(|(_, availability)| **availability != Availability::Unavailable);
    let tier = usable.map(|(member, _)| member.priority()).min().or_else(|| {
        let usable_in_panic = members.iter().filter(|member| member.is_usable_in_panic());
        usable_in_panic.map(Member::priority).min()
    })?;
    let in_service = || all().filter(|(member, _)| member.priority() == tier && member.is_in_service());
    let healthy = in_service().filter(|(_, availability)| availability.is_up_or_unchecked());
    (healthy.count() * 100 < threshold * in_service().count()).then_some(tier)
}

#[cfg(test)]
impl CandidateSet {
    /// The candidate of this server.
    pub(super) fn find(&self, id: ServerId) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.server.id() == id)
    }
}

#[cfg(test)]
impl Candidate {
    /// A candidate of this index and weight.
    pub(super) fn for_test(index: usize, server: Server, weight: u16) -> Self {
        Self {
            live: server.live_counter(),
            identity_hash: server.identity_hash(),
            server: Arc::new(server),
            index,
            weight,
            sessions_max: None,
            is_trial: false,
        }
    }
}
