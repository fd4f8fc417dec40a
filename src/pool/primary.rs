//! Decides which of a pool's servers that call themselves primary is the primary: a pure function of what checks have
//! seen, in any order.
//!
//! The promotion of a replica begins a new timeline with a higher number. So of several primaries of one database the
//! one on the highest timeline is the primary, and the others are old ones whose writes are lost. The primary is
//! remembered: so an old primary that comes back alone is not taken for the primary. Where timelines do not decide (two
//! primaries on one timeline, or a kind of server that has none), the remembered primary stays. Where no server has a
//! timeline, another server succeeds the primary once that is down, if it has been a replica beside it and was promoted
//! after that. So the roles of the other servers are remembered, too. Where some servers have a timeline, a server
//! whose timeline cannot be read is not the primary.
//!
//! This is not consensus: it decides where this process sends sessions, not who may write.

mod epochs;
mod names;
mod rejection;
mod rivals;
mod succession;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::Numbering;
use super::known_primary::{KnownPrimary, Standing};
use rivals::ClaimNumbers;

/// What the latest check has seen of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observation {
    /// It calls itself primary.
    Primary {
        /// The identity of its data.
        system_identifier: Option<u64>,
        /// What it reports about its history.
        claim: Claim,
    },
    /// It does not call itself primary, or takes writes beside others by design.
    Replica {
        /// The identity of its data.
        system_identifier: Option<u64>,
    },
    /// It answers, but refused the check: its role is not known from that.
    Refused {
        /// Whether it still gets new sessions: it neither starts up nor shuts down.
        accepts_sessions: bool,
    },
    /// The check failed.
    Failed {
        /// Whether so many checks have failed that the server is down. It stays down until it reports its role, even if
        /// a later failure says otherwise.
        is_down: bool,
    },
}

/// What checks have found out about a server.
#[derive(Clone, Copy, Debug, Default)]
enum Knowledge {
    /// There was no check yet.
    #[default]
    Unchecked,
    /// Its checks were refused, or failed but not so often that it is down. Its role is not known.
    Silent,
    /// Its role is known, or it is down.
    Seen(Seen),
    /// An operator has disabled it: it is not checked, and what was seen of it does not count. Nothing waits for it.
    Disabled,
}

/// A server whose role is known, or that is down.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// As last reported, even while the server fails.
    system_identifier: Option<u64>,
    /// `None`: it did not call itself primary.
    claim: Option<Claim>,
    /// It is down. Its claim is kept only to be recognised when it is back.
    is_down: bool,
    /// Its latest check failed, or was refused: it may have been restarted.
    has_failed: bool,
    /// The numbers of the first and the latest check at which it has called itself primary, without another role in
    /// between. [`ClaimNumbers`] gives them.
    claimed: (u64, u64),
}

/// A server calls itself primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its timeline.
    pub(super) timeline: Option<u32>,
    /// The kind of number that `timeline` is.
    pub(super) numbering: Numbering,
}

/// Whether a server that calls itself primary is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PrimaryVerdict {
    /// It is.
    Primary,
    /// Undecided until all servers of the pool have been checked once.
    Undecided,
    /// It is not, and why.
    Rejected(String),
}

/// Decides which server of a pool is the primary.
#[derive(Clone, Debug, Default)]
pub(super) struct PrimaryWatch {
    /// Its list of other servers is empty: they are in `others`, also while no primary is known.
    known: Option<KnownPrimary>,
    others: BTreeMap<Arc<str>, Standing>,
    /// Whether `others` has changed since that was last asked.
    others_changed: bool,
    /// The servers of the pool by label.
    servers: BTreeMap<Arc<str>, Knowledge>,
    /// The servers that call themselves primary, or did so before they went down. A check goes through these few only.
    claiming: BTreeSet<Arc<str>>,
    claim_numbers: ClaimNumbers,
    /// The addresses of the servers of the pool, and of others of which something is remembered, by label.
    addresses: BTreeMap<Arc<str>, Box<str>>,
    /// The server on which the Sentinels have agreed once in an epoch that is too low. A second time renews the
    /// numbers.
    renewal_candidate: Option<Arc<str>>,
}

/// How many servers that have left the pool are remembered with their roles, in case they come back. When there are
/// more, all are forgotten.
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

    /// The memory to be kept.
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

    /// Whether the memory of the other servers has changed since this was last asked.
    pub(super) fn take_others_changed(&mut self) -> bool {
        std::mem::take(&mut self.others_changed)
    }

    /// Takes over what another pool remembers, if nothing is remembered yet. Returns whether it does.
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

    /// Sets the servers of the pool; the second value says whether a server is disabled. What was seen of other servers
    /// is forgotten.
    pub(super) fn set_servers<'a>(&mut self, servers: impl Iterator<Item = (&'a Arc<str>, bool)>) {
        let mut before = std::mem::take(&mut self.servers);
        let servers = servers.map(|(label, is_disabled)| {
            let knowledge = match before.remove(label) {
                _ if is_disabled => Knowledge::Disabled,
                None | Some(Knowledge::Disabled) => Knowledge::Unchecked,
                Some(known) => known,
            };
            (Arc::clone(label), knowledge)
        });
        self.servers = servers.collect();
        let servers = &self.servers;
        self.claiming
            .retain(|label| matches!(servers.get(label), Some(Knowledge::Seen(seen)) if seen.claim.is_some()));
        if self.others.len() > self.servers.len() + DEPARTED_MAX {
            self.others.retain(|label, _| self.servers.contains_key(label));
            self.others_changed = true;
        }
    }

    /// Takes note of the result of a check, and decides anew.
    pub(super) fn observe(&mut self, server: &str, observation: Observation) {
        let Some(knowledge) = self.servers.get_mut(server) else {
            return;
        };
        let before = match (*knowledge, observation) {
            (Knowledge::Seen(seen), _) => seen,
            (Knowledge::Disabled, _) => return,
            (_, Observation::Refused { .. } | Observation::Failed { is_down: false }) => {
                *knowledge = Knowledge::Silent;
                return;
            }
            _ => Seen::default(),
        };
        let (identifier, claim) = match observation {
            Observation::Primary {
                system_identifier,
                claim,
            } => {
                // A server cannot lose its timeline without a restart, during which a check would fail.
                let is_timeline = claim.numbering == Numbering::Timeline;
                let known = before.claim.filter(|_| is_timeline && !before.has_failed);
                let timeline = claim.timeline.or_else(|| known?.timeline);
                (system_identifier, Some(Claim { timeline, ..claim }))
            }
            Observation::Replica { system_identifier } => (system_identifier, None),
            Observation::Refused { .. } | Observation::Failed { .. } => (None, before.claim),
        };
        *knowledge = Knowledge::Seen(Seen {
            system_identifier: identifier.or(before.system_identifier),
            claim,
            claimed: self.claim_numbers.after(before, observation),
            // A server that is down stays down until it reports its role.
            is_down: match observation {
                Observation::Failed { is_down } => is_down || before.is_down,
                Observation::Refused { .. } => before.is_down,
                Observation::Primary { .. } | Observation::Replica { .. } => false,
            },
            has_failed: matches!(observation, Observation::Refused { .. } | Observation::Failed { .. }),
        });
        match claim {
            Some(_) => self.claiming.insert(server.into()),
            None => self.claiming.remove(server),
        };
        let is_promoted_again = before
            .claim
            .zip(claim)
            .is_some_and(|(before, now)| now.timeline > before.timeline);
        match (observation, self.others.get(server)) {
            (Observation::Replica { .. }, _) => self.set_standing(server, Standing::Replica),
            (Observation::Primary { .. }, Some(Standing::Replica)) => self.set_standing(server, Standing::Promoted),
            (_, Some(Standing::Rejected)) if is_promoted_again => self.forget_standing(server),
            _ => {}
        }
        if matches!(observation, Observation::Primary { .. }) {
            self.renew_numbers(server);
        }
        let is_answer = !matches!(observation, Observation::Failed { .. });
        self.decide(is_answer.then_some(server));
    }

    /// The server that is the primary; `None`: there is none, or none can be trusted.
    pub(super) fn in_force(&self) -> Option<&str> {
        let known = self.known.as_ref()?;
        let (_, seen, claim) = self.claims().find(|(server, ..)| ***server == *known.server)?;
        // A timeline that is not known is the lowest. Of one server, a lower epoch is that of other Sentinels.
        let is_ordered = claim.timeline >= known.timeline || claim.numbering != Numbering::Timeline;
        let is_it = is_same_system(seen.system_identifier, known.system_identifier) && is_ordered;
        (is_it && self.higher(known).is_empty()).then_some(&*known.server)
    }

    /// This primary, and what its timeline is a number of.
    pub(super) fn numbered(&self, known: &KnownPrimary) -> (KnownPrimary, Numbering) {
        let claim = self.seen(&known.server).and_then(|seen| seen.claim);
        (known.clone(), claim.unwrap_or_default().numbering)
    }

    /// Whether a server that calls itself primary is one. A server that is down is rejected as soon as another one is
    /// the primary: it may come back in a state in which it does not report its role.
    pub(super) fn verdict(&self, server: &str) -> PrimaryVerdict {
        let Some((seen, claim)) = self.seen(server).and_then(|seen| Some((seen, seen.claim?))) else {
            return PrimaryVerdict::Undecided; // not of this pool, or disabled meanwhile
        };
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
        match self.servers.get(server) {
            Some(Knowledge::Seen(seen)) => Some(*seen),
            _ => None,
        }
    }

    /// All claims of the servers of the pool that are not down.
    fn claims(&self) -> impl Iterator<Item = (&Arc<str>, Seen, Claim)> {
        self.claiming.iter().filter_map(|label| {
            let seen = self.seen(label).filter(|seen| !seen.is_down)?;
            Some((label, seen, seen.claim?))
        })
    }

    /// The servers of the same database that claim a higher timeline than the remembered one. Up to the highest
    /// timeline that an operator has overruled, only promotions since then count.
    fn higher(&self, known: &KnownPrimary) -> Vec<Arc<str>> {
        if known.highest_timeline().is_none() {
            return Vec::new(); // there are none
        }
        let is_promoted = |label: &str| {
            self.others
                .get(label)
                .is_some_and(|standing| *standing != Standing::Rejected)
        };
        let is_higher = |(label, seen, claim): &(&Arc<str>, Seen, Claim)| {
            is_same_system(seen.system_identifier, known.system_identifier)
                && claim.timeline > known.timeline
                && (claim.timeline > known.overruled || is_promoted(label))
        };
        let higher: Vec<_> = self.claims().filter(is_higher).collect();
        let top = higher.iter().map(|(.., claim)| claim.timeline).max().flatten();
        let is_top = |(.., claim): &&(&Arc<str>, Seen, Claim)| claim.timeline == top;
        let tops = higher.iter().filter(is_top);
        tops.map(|(label, ..)| Arc::clone(label)).collect()
    }

    /// `answered`: the server whose check this is, if it has answered.
    fn decide(&mut self, answered: Option<&str>) {
        if self.is_new_database() {
            self.known = None;
            self.others.retain(|_, standing| *standing != Standing::Rejected);
            self.others_changed = true;
        }
        let Some(known) = self.known.clone() else {
            return self.decide_anew();
        };
        let higher = self.higher(&known);
        match higher.as_slice() {
            [] => {}
            [server] => return self.adopt(server),
            _ => return, // nothing decides between them
        }
        if self.in_force().is_some() {
            let server = &*known.server;
            // It lives beside the others. Before its next answer it may have died, and one of them may follow it.
            if answered == Some(server) {
                self.reject_others_than(server);
            }
            if let (Some(seen), Some(known)) = (self.seen(server), &mut self.known) {
                known.system_identifier = known.system_identifier.or(seen.system_identifier);
                known.timeline = known.timeline.or_else(|| seen.claim?.timeline);
            }
            return;
        }
        self.settle(|seen, claim| {
            is_same_system(seen.system_identifier, known.system_identifier)
                && (known.timeline.is_none() || claim.timeline == known.timeline)
        });
    }

    /// Whether all servers have the same system identifier, and it is not the remembered one. The remembered primary
    /// must be among them: the others alone may be servers of another database that are listed by mistake.
    fn is_new_database(&self) -> bool {
        let remembered = self.known.as_ref();
        let old = remembered.and_then(|known| known.system_identifier);
        let new = remembered.and_then(|known| self.seen(&known.server)?.system_identifier);
        let mut systems = self.servers.keys().map(|label| self.seen(label)?.system_identifier);
        old.zip(new).is_some_and(|(old, new)| old != new) && systems.all(|system| system == new)
    }
}

/// An identifier that is not known is that of any database.
fn is_same_system(one: Option<u64>, other: Option<u64>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

#[cfg(test)]
mod tests;
