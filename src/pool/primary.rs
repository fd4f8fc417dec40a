//! Decides which of a pool's servers that call themselves primary is the primary. This depends only on what is
//! remembered and on the results of checks, which come in any order; there is no IO and no clock.
//!
//! The primary is remembered. If none is remembered, then of the servers that call themselves primary, the only one on
//! the highest timeline is the primary, once each server is down or disabled, or its role is known. If one is
//! remembered, the first of these rules that applies decides, among the servers of the same database that call
//! themselves primary:
//! 1. A server on a higher timeline than the remembered primary is the primary. The promotion of a replica begins a new
//!    timeline with a higher number. If several servers are on the highest timeline, none of them is the primary. A
//!    timeline that an operator has decided against counts only after a promotion ([`KnownPrimary::overruled`]).
//! 2. The remembered primary stays as long as it calls itself primary, and not on a lower timeline.
//! 3. If no timeline is remembered, and the primary is down, disabled or a replica, its successor is a server that was
//!    seen as its replica and was promoted after the last answer of the primary. So what was seen of the other servers
//!    is remembered, too ([`Standing`]). See [`succession`], also for a primary that has left the pool.
//! 4. There is no primary. For example, if a timeline is remembered, a server whose timeline cannot be read is not the
//!    primary.
//!
//! For example, `a` is the primary on timeline 3 and goes down. Its replica `b` is promoted, and is the primary on
//! timeline 4. If `a` comes back on timeline 3, it is not the primary, even if `b` is down by then: new writes on `a`
//! would be lost.
//!
//! Redis has no timelines. If its Sentinels are configured, their configuration epoch is used as the timeline (see
//! [`epochs`]).
//!
//! This is not consensus: it decides where this process sends sessions, not who may write.

mod knowledge;
mod epochs;
mod names;
mod rejection;
mod rivals;
mod succession;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::Numbering;
use super::known_primary::{KnownPrimary, Standing};
pub(super) use knowledge::{Claim, Observation};
use knowledge::{ClaimNumbers, Knowledge, Seen};

/// Whether a server that calls itself primary is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PrimaryVerdict {
    /// It is.
    Primary,
    /// Not known yet. Either no primary is remembered, and not all servers that may be the primary have been checked;
    /// or the server is down, and no other one is the primary; or an operator has disabled the server since its role
    /// was last seen.
    Undecided,
    /// It is not, and why.
    Rejected(String),
}

/// Decides which server of a pool is the primary.
#[derive(Clone, Debug, Default)]
pub(super) struct PrimaryWatch {
    /// The remembered primary. Its own list of the other servers is empty: they are in `others`.
    known: Option<KnownPrimary>,
    /// What is remembered of the other servers, by label. It is kept while no primary is known, too.
    others: BTreeMap<Arc<str>, Standing>,
    /// Whether the rest of the memory, `others` and addresses, has changed since that was last asked.
    rest_of_memory_changed: bool,
    /// The servers of the pool by label.
    servers: BTreeMap<Arc<str>, Knowledge>,
    /// The servers that call themselves primary, or did so before they went down. [`Self::claims`] goes through these
    /// few only.
    claiming: BTreeSet<Arc<str>>,
    /// Numbers the checks at which a server calls itself primary. These numbers are no timelines and no epochs.
    claim_numbers: ClaimNumbers,
    /// The addresses of the servers of the pool, and of others of which something is remembered, by label.
    addresses: BTreeMap<Arc<str>, Box<str>>,
    /// The server on which the Sentinels have agreed in one check, although its epoch is not above the remembered ones,
    /// or none is remembered. If they agree on it in a second check, too, that epoch is remembered (see [`epochs`]).
    renewal_candidate: Option<Arc<str>>,
}

/// How many servers that have left the pool keep their [`Standing`], in case they come back. When there are more, the
/// standings of all servers that have left are forgotten.
const DEPARTED_MAX: usize = 64;

impl PrimaryWatch {
    /// Begins with the remembered primary.
    pub(super) fn new(known: Option<KnownPrimary>) -> Self {
        let mut watch = Self::default();
        if let Some(known) = known {
            watch.inherit(known);
        }
        watch
    }

    /// The primary that is remembered, without the other servers.
    pub(super) fn known(&self) -> Option<&KnownPrimary> {
        self.known.as_ref()
    }

    /// What is to be kept over restarts: the remembered primary, with the other servers. `None`: no primary is
    /// remembered.
    pub(super) fn memory(&self) -> Option<KnownPrimary> {
        let others = self.others.iter();
        let others = others.map(|(label, standing)| ((**label).into(), *standing)).collect();
        let known = self.known.clone()?;
        Some(KnownPrimary {
            others,
            addresses: self.remembered_addresses(),
            ..known
        })
    }

    /// Whether the memory apart from [`Self::known`] has changed since this was last asked.
    pub(super) fn take_rest_of_memory_changed(&mut self) -> bool {
        std::mem::take(&mut self.rest_of_memory_changed)
    }

    /// Takes over what another pool remembers, if no primary is remembered yet. Returns whether it does.
    pub(super) fn inherit(&mut self, mut known: KnownPrimary) -> bool {
        if self.known.is_some() {
            return false;
        }
        let others = std::mem::take(&mut known.others).into_iter();
        self.others = others.map(|(label, standing)| (label.into(), standing)).collect();
        let addresses = std::mem::take(&mut known.addresses).into_iter();
        self.addresses
            .extend(addresses.map(|(label, address)| (label.into(), address)));
        self.known = Some(known);
        true
    }

    /// Sets the servers of the pool; the second value says whether a server is disabled. What checks have seen of
    /// servers that left the pool is forgotten; their standings are not (see [`DEPARTED_MAX`]).
    pub(super) fn set_servers<'a>(&mut self, servers: impl Iterator<Item = (&'a Arc<str>, bool)>) {
        let mut before = std::mem::take(&mut self.servers);
        let servers = servers.map(|(label, is_disabled)| {
            let knowledge = match before.remove(label) {
                _ if is_disabled => Knowledge::Disabled,
                None | Some(Knowledge::Disabled) => Knowledge::Unchecked,
                Some(knowledge) => knowledge,
            };
            (Arc::clone(label), knowledge)
        });
        self.servers = servers.collect();
        let servers = &self.servers;
        self.claiming
            .retain(|label| matches!(servers.get(label), Some(Knowledge::Seen(seen)) if seen.claim.is_some()));
        let departed = self.others.keys().filter(|label| !servers.contains_key(*label));
        if departed.count() > DEPARTED_MAX {
            self.others.retain(|label, _| self.servers.contains_key(label));
            self.rest_of_memory_changed = true;
        }
    }

    /// Records the result of a check, and applies the rules.
    pub(super) fn observe(&mut self, server: &str, observation: Observation) {
        let Some(knowledge) = self.servers.get_mut(server) else {
            return;
        };
        let before = knowledge.seen();
        *knowledge = knowledge.after(observation, &mut self.claim_numbers);
        let Some(seen) = knowledge.seen() else {
            return; // disabled, or still silent
        };
        match seen.claim {
            Some(_) => self.claiming.insert(server.into()),
            None => self.claiming.remove(server),
        };
        match observation {
            Observation::Primary { .. } => {
                self.note_claim(server, before.and_then(|before| before.claim), seen.claim);
                self.renew_epochs(server);
            }
            Observation::Replica { .. } => self.set_standing(server, Standing::Replica),
            Observation::Refused { .. } | Observation::Failed { .. } => {}
        }
        let is_answer = !matches!(observation, Observation::Failed { .. });
        self.decide(is_answer.then_some(server));
    }

    /// Updates the standing of a server that calls itself primary. A higher timeline than that of its previous
    /// claim is a new promotion, so that an earlier rejection no longer counts.
    fn note_claim(&mut self, server: &str, before: Option<Claim>, now: Option<Claim>) {
        let is_promoted_again = || {
            before
                .zip(now)
                .is_some_and(|(before, now)| now.timeline > before.timeline)
        };
        match self.others.get(server) {
            Some(Standing::Replica) => self.set_standing(server, Standing::Promoted),
            Some(Standing::Rejected) if is_promoted_again() => self.forget_standing(server),
            _ => {}
        }
    }

    /// The server that is the primary; `None`: there is none, or none can be trusted.
    pub(super) fn in_force(&self) -> Option<&str> {
        let known = self.known.as_ref()?;
        let (_, seen, claim) = self.claims().find(|(server, ..)| ***server == *known.server)?;
        // A timeline that is not known is the lowest. An epoch may go back: then other Sentinels have named the server.
        let has_gone_back = claim.numbering == Numbering::Timeline && claim.timeline < known.timeline;
        let is_same = is_same_system(seen.system_identifier, known.system_identifier) && !has_gone_back;
        (is_same && self.on_higher_timeline(known).is_empty()).then_some(&*known.server)
    }

    /// This primary, and which kind of number its `timeline` is.
    pub(super) fn numbered(&self, known: &KnownPrimary) -> (KnownPrimary, Numbering) {
        let claim = self.seen(&known.server).and_then(|seen| seen.claim);
        (known.clone(), claim.unwrap_or_default().numbering)
    }

    /// Whether a server that calls itself primary is one. A server that is down is rejected as soon as another one is
    /// the primary: it may come back in a state in which it does not report its role.
    pub(super) fn verdict(&self, server: &str) -> PrimaryVerdict {
        let Some(seen) = self.seen(server) else {
            return PrimaryVerdict::Undecided; // not of this pool, or disabled since its role was last seen
        };
        // A server loses its claim when Sentinels that were set up anew agree on another server.
        let claim = seen.claim.unwrap_or(Claim {
            timeline: None,
            numbering: Numbering::None,
        });
        let has_unchecked = || {
            let mut awaited = self.awaited();
            awaited.any(|(_, knowledge)| matches!(knowledge, Knowledge::Unchecked))
        };
        match self.in_force() {
            Some(primary) if primary == server => PrimaryVerdict::Primary,
            None if seen.is_down || self.known.is_none() && has_unchecked() => PrimaryVerdict::Undecided,
            _ => PrimaryVerdict::Rejected(self.why_rejected(server, seen, claim)),
        }
    }

    fn seen(&self, server: &str) -> Option<Seen> {
        self.servers.get(server)?.seen()
    }

    /// The claims of those servers of the pool that are not down.
    fn claims(&self) -> impl Iterator<Item = (&Arc<str>, Seen, Claim)> {
        self.claiming.iter().filter_map(|label| {
            let seen = self.seen(label).filter(|seen| !seen.is_down)?;
            Some((label, seen, seen.claim?))
        })
    }

    /// The servers of the same database that claim the highest timeline, if that is higher than the remembered one. A
    /// timeline that is not higher than [`KnownPrimary::overruled`] counts only if the server was promoted since the
    /// operator's decision.
    fn on_higher_timeline(&self, known: &KnownPrimary) -> Vec<Arc<str>> {
        if known.highest_timeline().is_none() {
            return Vec::new(); // nothing to compare with
        }
        let is_promoted = |label: &str| matches!(self.others.get(label), Some(Standing::Replica | Standing::Promoted));
        let is_higher = |(label, seen, claim): &(&Arc<str>, Seen, Claim)| {
            is_same_system(seen.system_identifier, known.system_identifier)
                && claim.timeline > known.timeline
                && (claim.timeline > known.overruled || is_promoted(label))
        };
        let higher: Vec<_> = self.claims().filter(is_higher).collect();
        let highest = higher.iter().map(|(.., claim)| claim.timeline).max();
        let on_highest = higher.iter().filter(|(.., claim)| Some(claim.timeline) == highest);
        on_highest.map(|(label, ..)| Arc::clone(label)).collect()
    }

    /// Applies the rules of this module after a check. `answered`: the server that was checked, if it has answered.
    fn decide(&mut self, answered: Option<&str>) {
        if self.is_new_database() {
            self.known = None;
            // Servers were rejected as primaries of the old database.
            self.others.retain(|_, standing| *standing != Standing::Rejected);
            self.rest_of_memory_changed = true;
        }
        let Some(known) = self.known.clone() else {
            return self.decide_anew();
        };
        // Rule 1.
        match self.on_higher_timeline(&known).as_slice() {
            [] => {}
            [server] => return self.adopt(server),
            _ => return, // nothing decides between them
        }
        // Rule 2.
        if self.in_force().is_some() {
            let server = &*known.server;
            // If the primary has answered this check, it is alive: no claim of another server is a promotion after the
            // primary's death. A check of another server does not show that: the primary may have died since its last
            // answer.
            if answered == Some(server) {
                self.reject_others_than(server);
            }
            if let (Some(seen), Some(known)) = (self.seen(server), &mut self.known) {
                known.system_identifier = known.system_identifier.or(seen.system_identifier);
                known.timeline = known.timeline.or_else(|| seen.claim?.timeline);
            }
            return;
        }
        // Rule 3. It also finds the remembered primary under a new label. If its timeline is remembered, only a server
        // on this timeline can be that primary.
        self.settle(|seen, claim| {
            is_same_system(seen.system_identifier, known.system_identifier)
                && (known.timeline.is_none() || claim.timeline == known.timeline)
        });
    }

    /// Whether the pool was set up anew: all servers have the same system identifier, and it is not the remembered one.
    /// The remembered primary must be among them: the others alone may be servers of another database that are listed
    /// by mistake.
    fn is_new_database(&self) -> bool {
        let Some(known) = &self.known else { return false };
        let system = |label: &str| self.seen(label)?.system_identifier;
        let (old, new) = (known.system_identifier, system(&known.server));
        !is_same_system(old, new) && self.servers.keys().all(|label| system(label) == new)
    }
}

/// An identifier that is not known counts as equal to any other.
fn is_same_system(one: Option<u64>, other: Option<u64>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

#[cfg(test)]
mod tests;
