//! The servers that may be picked: the usable ones of the best tier that has any.

use std::sync::Arc;

use tokio::time::Instant;

use super::health::{Checked, Terms};
use super::{Member, PoolRules, Server, ServerId};

/// Whether a server may be picked at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// It is up.
    Up,
    /// It has no check result yet.
    Unchecked,
    /// It is ejected and its back-off is over: one session may try it.
    TrialDue,
    /// It is down, ejected, of weight 0, drained or disabled.
    Unavailable,
}

/// A server that may be picked.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) server: Arc<Server>,
    /// Its index in the pool's list of servers.
    pub(super) index: usize,
    /// 1 to 256; in a pool with a slow start 10 to 25,600, as all weights count a hundredfold there.
    pub(super) weight: u16,
    /// XXH3-64 of its identity.
    pub(super) key: u64,
    /// A session needs the one trial to get it.
    is_trial: bool,
}

impl Candidate {
    /// Its sessions at this moment, over all workers.
    pub(super) fn live(&self) -> u32 {
        self.server.live()
    }
}

/// The candidates at one instant, and what else follows from the same facts.
#[derive(Debug, Default)]
pub(super) struct CandidateSet {
    pub(super) candidates: Vec<Candidate>,
    /// The best tier in which a server is up.
    pub(super) best_tier: Option<u8>,
    /// The tier all of whose servers are used because so few of them are healthy.
    pub(super) panic_tier: Option<u8>,
    /// The candidates are those of `panic_tier`.
    in_panic: bool,
    /// The earliest instant at which time alone changes any of this; `None`: it never does.
    expires: Option<Instant>,
}

impl CandidateSet {
    /// The candidates among these servers, without those that are excluded.
    ///
    /// A tier is preferred to all tiers of a higher number. Within a tier the servers that have been checked come before
    /// those that have not; an ejected one whose trial is due counts like one that is up.
    pub(super) fn new(
        members: &[Member],
        rules: &PoolRules,
        now: Instant,
        excluded: impl Fn(ServerId) -> bool,
    ) -> Self {
        let availability: Vec<_> = members.iter().map(|member| member.availability(now)).collect();
        let panic_tier = panic_tier(members, &availability, rules);
        let mut candidates = Vec::new();
        let mut best = (u8::MAX, true);
        for (index, member) in members.iter().enumerate() {
            let tier = member.priority();
            let usable = match panic_tier {
                Some(panic_tier) if panic_tier == tier => member.is_usable_in_panic(),
                _ => availability[index] != Availability::Unavailable,
            };
            let preference = match panic_tier {
                Some(panic_tier) if panic_tier == tier => (tier, false),
                _ => (tier, member.checked() == Checked::Unchecked),
            };
            if !usable || preference > best || excluded(member.id()) {
                continue;
            }
            if preference < best {
                candidates.clear();
                best = preference;
            }
            candidates.push(Candidate {
                server: Arc::clone(member),
                index,
                weight: member.weight(),
                key: member.key(),
                is_trial: availability[index] == Availability::TrialDue,
            });
        }
        let up = (0..members.len()).filter(|index| availability[*index] == Availability::Up);
        let mut set = Self {
            candidates,
            best_tier: up.map(|index| members[index].priority()).min(),
            panic_tier,
            in_panic: panic_tier == Some(best.0),
            expires: None,
        };
        let trials = members.iter().filter_map(|member| member.trial_due_at());
        set.expires = trials.filter(|due| *due > now).min();
        set.apply_slow_start(rules, now);
        set
    }

    /// Reduces the weights of the servers that came back lately. All weights are multiplied by 100 first, so that a
    /// percentage of any of them is a whole number.
    fn apply_slow_start(&mut self, rules: &PoolRules, now: Instant) {
        let Some(slow_start) = rules.slow_start else { return };
        for candidate in &mut self.candidates {
            candidate.weight *= candidate.server.percent(now, slow_start); // at most 256 * 100
            let next = candidate.server.next_percent_at(now, slow_start);
            self.expires = self.expires.into_iter().chain(next).min();
        }
    }

    /// Whether time alone has changed none of it until now. An instant before the one it was built at counts as that
    /// one: another session has already been placed by this set.
    pub(super) fn holds_at(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// The terms on which a session gets this candidate; `None`: another session has claimed the one trial since.
    pub(super) fn admit(&self, candidate: &Candidate, rules: &PoolRules, now: Instant) -> Option<Terms> {
        if self.in_panic || !candidate.is_trial {
            return Some(Terms::Free);
        }
        let claimed = candidate.server.claim_trial(now, rules.connect_timeout);
        claimed.then_some(Terms::Trial)
    }
}

/// The best tier, if the share of its healthy servers is under the panic threshold.
///
/// The best is the first with a usable server; where no tier has one, the first with a server that is merely out of
/// reach. Servers without a check result count as healthy: nothing is known against them.
fn panic_tier(members: &[Member], availability: &[Availability], rules: &PoolRules) -> Option<u8> {
    let threshold = usize::from(rules.panic_threshold?);
    let all = || members.iter().zip(availability);
    let usable = all().filter(|(_, availability)| **availability != Availability::Unavailable);
    let tier = usable.map(|(member, _)| member.priority()).min().or_else(|| {
        let reachable_or_not = members.iter().filter(|member| member.is_usable_in_panic());
        reachable_or_not.map(Member::priority).min()
    })?;
    let of_tier = || all().filter(|(member, _)| member.priority() == tier && member.is_in_service());
    let is_healthy = |availability| matches!(availability, Availability::Up | Availability::Unchecked);
    let healthy = of_tier().filter(|(_, availability)| is_healthy(**availability));
    (healthy.count() * 100 < threshold * of_tier().count()).then_some(tier)
}

#[cfg(test)]
impl CandidateSet {
    /// The candidate that is this server.
    pub(super) fn find(&self, id: ServerId) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.server.id() == id)
    }
}

#[cfg(test)]
impl Candidate {
    /// A candidate of this index and weight.
    pub(super) fn for_test(index: usize, server: Server, weight: u16) -> Self {
        Self {
            key: server.key(),
            server: Arc::new(server),
            index,
            weight,
            is_trial: false,
        }
    }
}
