//! Decides which server may become the primary where no timeline decides. That depends on the state of the remembered
//! primary ([`Succession`]) and on what is remembered of the server itself ([`Standing`]).
//!
//! For example, `a` is the primary, and `b` was seen as its replica. Once `a` is down, `b` may succeed it. But if `a`
//! still answers as the primary after `b` has called itself primary, both were alive: `b` is rejected, and may not
//! succeed `a`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Claim, Knowledge, KnownPrimary, PrimaryWatch, Seen, Standing, is_same_system};

/// Which servers may become the primary without a higher timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Succession {
    /// No server: the remembered primary may be alive, or timelines decide.
    Closed,
    /// Servers that have been replicas beside the remembered primary. The remembered primary is down, disabled or a
    /// replica itself.
    Replicas,
    /// Also servers that were never seen beside the remembered primary. The remembered primary has left the pool, and
    /// may be one of these servers under another name.
    Newcomers,
    /// All servers: no primary is remembered.
    Open,
}

impl Succession {
    fn includes(self, standing: Option<Standing>) -> bool {
        match self {
            Self::Closed => false,
            Self::Replicas => matches!(standing, Some(Standing::Replica | Standing::Promoted)),
            Self::Newcomers => standing != Some(Standing::Rejected),
            Self::Open => true,
        }
    }
}

impl PrimaryWatch {
    /// An operator says that this server is the primary. Returns whether the server calls itself primary and is not
    /// down; if not, nothing changes.
    pub(in crate::pool) fn trust(&mut self, server: &str) -> bool {
        let Some((label, seen, claim)) = self.claims().find(|(label, ..)| ***label == *server) else {
            return false;
        };
        let label = Arc::clone(label);
        let is_same = |other: Option<u64>| is_same_system(other, seen.system_identifier);
        let known = self.known.as_ref().filter(|known| is_same(known.system_identifier));
        let remembered = known.and_then(KnownPrimary::highest_timeline);
        let claims = self.claims().filter(|(_, seen, _)| is_same(seen.system_identifier));
        let claimed = claims.filter_map(|(.., claim)| claim.timeline).max();
        let highest = claimed.max(remembered);
        self.known = Some(KnownPrimary {
            server: server.into(),
            system_identifier: seen.system_identifier,
            timeline: claim.timeline,
            overruled: highest.filter(|highest| Some(*highest) > claim.timeline),
            ..KnownPrimary::default()
        });
        self.renewal_candidate = None;
        // Rejects all servers except those that are known to be replicas now. A server that is down or has left the
        // pool may have been promoted already.
        let is_replica = |seen: &Seen| seen.claim.is_none() && !seen.is_down;
        self.reject(|_, knowledge, _| !knowledge.seen().as_ref().is_some_and(is_replica));
        self.forget_standing(&label);
        self.decide(Some(server));
        true
    }

    fn succession(&self) -> Succession {
        let Some(known) = &self.known else {
            return Succession::Open;
        };
        let has_timeline = known.timeline.is_some();
        match self.servers.get(&*known.server) {
            // A newcomer may be the primary under another name. But once an operator has overruled a higher timeline,
            // two branches may have the same timeline numbers: the newcomer may be on the overruled branch.
            None if known.overruled.is_some() => Succession::Closed,
            None => Succession::Newcomers,
            Some(_) if has_timeline => Succession::Closed,
            Some(Knowledge::Disabled) => Succession::Replicas,
            Some(Knowledge::Seen(seen)) if seen.is_down || seen.claim.is_none() => Succession::Replicas,
            Some(_) => Succession::Closed,
        }
    }

    /// The servers that may be the primary, or become it without a higher timeline, but whose role is not known yet. As
    /// long as there are any, [`Self::settle`] decides nothing.
    pub(super) fn awaited(&self) -> impl Iterator<Item = (&Arc<str>, Knowledge)> {
        let succession = self.succession();
        self.servers.iter().filter_map(move |(label, knowledge)| {
            let is_unknown = matches!(knowledge, Knowledge::Unchecked | Knowledge::Silent);
            let is_awaited = is_unknown && succession.includes(self.others.get(label).copied());
            is_awaited.then_some((label, *knowledge))
        })
    }

    /// Whether this server may become the primary without a higher timeline.
    pub(super) fn may_succeed(&self, server: &str) -> bool {
        self.succession().includes(self.others.get(server).copied())
    }

    /// Makes the candidate the primary if it is the only one and not rejected, once the role of all servers that may
    /// become the primary is known. If there are several candidates, all are rejected from then on.
    pub(super) fn settle(&mut self, is_candidate: impl Fn(&Seen, &Claim) -> bool) {
        let succession = self.succession();
        let candidates = self.claims().filter_map(|(label, seen, claim)| {
            let standing = self.others.get(label).copied();
            let is_eligible = succession.includes(standing) && is_candidate(&seen, &claim);
            is_eligible.then(|| (Arc::clone(label), standing))
        });
        let candidates: Vec<_> = candidates.collect();
        match candidates.as_slice() {
            [] | [(_, Some(Standing::Rejected))] => {} // being the only one does not undo a rejection
            _ if self.awaited().next().is_some() => {}
            [(only, _)] => self.adopt(only),
            several => several
                .iter()
                .for_each(|(label, _)| self.set_standing(label, Standing::Rejected)),
        }
    }

    /// No primary is remembered: accepts the only claim to the highest timeline, once the role of all servers is known.
    pub(super) fn decide_anew(&mut self) {
        let systems = self.claims().filter_map(|(_, seen, _)| seen.system_identifier);
        let is_one_database = systems.collect::<BTreeSet<_>>().len() <= 1;
        let top = self.claims().map(|(.., claim)| claim.timeline).max().flatten();
        // A server whose timeline is not known may be on the highest one. Timelines of different databases do not
        // compare.
        self.settle(|_, claim| !is_one_database || claim.timeline == top || claim.timeline.is_none());
    }

    /// Makes this server the primary, remembers it, and rejects the others (see [`Self::reject_others_than`]).
    pub(super) fn adopt(&mut self, server: &Arc<str>) {
        let Some(seen) = self.seen(server) else {
            return;
        };
        self.renewal_candidate = None;
        let known = self.known.as_ref();
        let timeline = seen.claim.and_then(|claim| claim.timeline);
        self.known = Some(KnownPrimary {
            server: (**server).into(),
            system_identifier: seen.system_identifier.or_else(|| known?.system_identifier),
            timeline,
            overruled: known
                .and_then(|known| known.overruled)
                .filter(|overruled| Some(*overruled) > timeline),
            ..KnownPrimary::default()
        });
        self.reject_others_than(server);
    }

    /// This server is the primary, and is alive. All other servers but its replicas are rejected: those that call
    /// themselves primary at the same time, and those of which nothing is known, which may be old primaries that are
    /// down.
    pub(super) fn reject_others_than(&mut self, server: &str) {
        self.forget_standing(server);
        self.reject(|label, knowledge, standing| {
            let claims_primary = knowledge.seen().is_some_and(|seen| seen.claim.is_some());
            let is_replica = standing == Some(Standing::Replica) && !claims_primary;
            label != server && !is_replica
        });
    }

    /// Rejects the servers for which `is_rejected` is true, including those that have left the pool and are remembered.
    /// The arguments of `is_rejected` are the label, the knowledge and the standing of a server.
    fn reject(&mut self, is_rejected: impl Fn(&str, &Knowledge, Option<Standing>) -> bool) {
        let departed = self.others.keys().filter(|label| !self.servers.contains_key(*label));
        let departed = departed.map(|label| (label, &Knowledge::Unchecked));
        let rejected = self.servers.iter().chain(departed).filter(|(label, knowledge)| {
            let standing = self.others.get(*label).copied();
            is_rejected(label, knowledge, standing)
        });
        let rejected: Vec<_> = rejected.map(|(label, _)| Arc::clone(label)).collect();
        for label in rejected {
            self.set_standing(&label, Standing::Rejected);
        }
    }

    /// Sets what is remembered of a server; `rest_of_memory_changed` reports a change of that.
    pub(super) fn set_standing(&mut self, label: &str, standing: Standing) {
        if self.others.get(label) != Some(&standing) {
            self.others.insert(label.into(), standing);
            self.rest_of_memory_changed = true;
        }
    }

    pub(super) fn forget_standing(&mut self, label: &str) {
        self.rest_of_memory_changed |= self.others.remove(label).is_some();
    }

    /// The servers that are rejected ([`Standing::Rejected`]), including those that are disabled or have left the pool.
    pub(in crate::pool) fn rejected(&self) -> impl Iterator<Item = &Arc<str>> {
        let is_rejected = |(_, standing): &(&Arc<str>, &Standing)| **standing == Standing::Rejected;
        self.others.iter().filter(is_rejected).map(|(label, _)| label)
    }
}
