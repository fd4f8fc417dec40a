//! Which of a pool's servers that call themselves primary is one: a pure function of what checks have seen, in any order.
//!
//! The promotion of a replica begins a new timeline with a higher number. So of several primaries of one database the one
//! on the highest timeline is the primary, and the others are old ones whose writes are lost. What is known of the primary
//! is remembered: an old primary that comes back alone is not taken for one. Where timelines do not decide (two primaries
//! on one timeline, or a kind of server that has none), the remembered primary stays. Where there are none, another server
//! follows it once it is down, unless both have been primaries at one time. Where some have a timeline, a server whose
//! timeline cannot be read is not the primary.
//!
//! This is no consensus: it decides where this process sends sessions, not who may write.

mod rejection;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::known_primary::KnownPrimary;

/// What the latest check has seen of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// It calls itself primary.
    Primary {
        /// The identity of its data.
        system_identifier: Option<u64>,
        /// Its timeline.
        timeline: Option<u32>,
    },
    /// It does not call itself primary, or takes writes beside others by design.
    Replica {
        /// The identity of its data.
        system_identifier: Option<u64>,
    },
    /// It answers, but did not let the check in: this tells nothing of its role.
    Refused,
    /// The check failed. `is_down`: so often that the server is down. This is not taken back by fewer failures.
    Failed {
        /// Whether the server is down.
        is_down: bool,
    },
}

/// What is known of a server.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// As last told, also while the server fails.
    system_identifier: Option<u64>,
    /// `None`: it did not call itself primary.
    claim: Option<Claim>,
    /// It is down. Its claim is kept only to be recognised when it is back.
    is_down: bool,
    /// Its latest check failed, or was refused: it may have been restarted.
    has_failed: bool,
    /// It was a replica after an operator last said which server is the primary: a promotion since then counts.
    was_replica: bool,
}

/// A server calls itself primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    timeline: Option<u32>,
    /// There was another claim that nothing decides against. Such a claim is not accepted later either, when the other one
    /// is gone: it takes a new timeline, another promotion, or the word of an operator.
    is_contested: bool,
}

/// Whether a server that calls itself primary is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PrimaryVerdict {
    /// It is.
    Primary,
    /// Not before all servers of the pool have been checked.
    Undecided,
    /// It is not, and why.
    Rejected(String),
}

/// Decides which server of a pool is the primary.
#[derive(Clone, Debug, Default)]
pub(super) struct PrimaryWatch {
    known: Option<KnownPrimary>,
    /// The servers of the pool by label, except disabled ones; `None`: no result yet, or refused ones only. Such a server may
    /// be the primary.
    servers: BTreeMap<Arc<str>, Option<Seen>>,
}

impl PrimaryWatch {
    /// Begins with what is remembered.
    pub(super) fn new(known: Option<KnownPrimary>) -> Self {
        Self {
            known,
            servers: BTreeMap::new(),
        }
    }

    /// What is to be remembered.
    pub(super) fn known(&self) -> Option<&KnownPrimary> {
        self.known.as_ref()
    }

    /// Takes over what another pool remembers, if nothing is remembered yet. Returns whether it does.
    pub(super) fn inherit(&mut self, known: KnownPrimary) -> bool {
        let inherits = self.known.is_none();
        self.known.get_or_insert(known);
        inherits
    }

    /// Sets the servers of the pool that are checked. What was seen of others is forgotten.
    pub(super) fn set_servers<'a>(&mut self, labels: impl Iterator<Item = &'a Arc<str>>) {
        let mut before = std::mem::take(&mut self.servers);
        self.servers = labels
            .map(|label| (Arc::clone(label), before.remove(label).flatten()))
            .collect();
    }

    /// Takes note of the result of a check, and decides anew.
    pub(super) fn observe(&mut self, server: &str, sighting: Sighting) {
        let Some(slot) = self.servers.get_mut(server) else {
            return;
        };
        if slot.is_none() && matches!(sighting, Sighting::Refused) {
            return;
        }
        let before = slot.unwrap_or_default();
        let (told, claim) = match sighting {
            Sighting::Primary {
                system_identifier,
                timeline,
            } => {
                // A server cannot lose its timeline without a restart, during which a check would fail.
                let known = before.claim.filter(|_| !before.has_failed);
                let timeline = timeline.or_else(|| known?.timeline);
                let same = before.claim.filter(|claim| claim.timeline == timeline);
                let is_contested = same.is_some_and(|claim| claim.is_contested);
                (system_identifier, Some(Claim { timeline, is_contested }))
            }
            Sighting::Replica { system_identifier } => (system_identifier, None),
            Sighting::Refused | Sighting::Failed { .. } => (None, before.claim),
        };
        *slot = Some(Seen {
            system_identifier: told.or(before.system_identifier),
            claim,
            // One that is down stays so until it tells its role.
            is_down: match sighting {
                Sighting::Failed { is_down } => is_down || before.is_down,
                Sighting::Refused => before.is_down,
                Sighting::Primary { .. } | Sighting::Replica { .. } => false,
            },
            has_failed: matches!(sighting, Sighting::Refused | Sighting::Failed { .. }),
            was_replica: before.was_replica || matches!(sighting, Sighting::Replica { .. }),
        });
        let is_answer = !matches!(sighting, Sighting::Failed { .. });
        self.decide(is_answer.then_some(server));
    }

    /// An operator says that this server is the primary. Returns whether it calls itself one; if not, nothing changes.
    pub(super) fn trust(&mut self, server: &str) -> bool {
        let Some((_, seen, claim)) = self.claims().find(|(label, ..)| ***label == *server) else {
            return false;
        };
        let is_same = |other: Option<u64>| is_same_system(other, seen.system_identifier);
        let remembered = self.known.as_ref().filter(|known| is_same(known.system_identifier));
        let remembered = remembered.and_then(KnownPrimary::highest_timeline);
        let claimed = self.claims().filter(|(_, seen, _)| is_same(seen.system_identifier));
        let highest = claimed.filter_map(|(.., claim)| claim.timeline).max().max(remembered);
        self.known = Some(KnownPrimary {
            server: server.into(),
            system_identifier: seen.system_identifier,
            timeline: claim.timeline,
            overruled: highest.filter(|highest| Some(*highest) > claim.timeline),
        });
        for seen in self.servers.values_mut().flatten() {
            seen.was_replica &= seen.claim.is_none() && !seen.is_down;
        }
        self.set_contested(server, false);
        self.decide(Some(server));
        true
    }

    /// The servers that call themselves primary, as far as is known.
    pub(super) fn claimants(&self) -> impl Iterator<Item = &Arc<str>> {
        self.claims().map(|(server, ..)| server)
    }

    /// The server that is the primary; `None`: none is, or none can be trusted.
    pub(super) fn in_force(&self) -> Option<&str> {
        let known = self.known.as_ref()?;
        let (_, seen, claim) = self.claims().find(|(server, ..)| ***server == *known.server)?;
        let is_ordered = claim.timeline >= known.timeline; // a timeline that is not known is the lowest
        let is_it = is_same_system(seen.system_identifier, known.system_identifier) && is_ordered;
        (is_it && self.higher(known).is_empty()).then_some(&*known.server)
    }

    /// Whether a server that calls itself primary is one. A server that is down is rejected as soon as another one is the
    /// primary: it may come back in a state in which it does not tell its role.
    pub(super) fn verdict(&self, server: &str) -> PrimaryVerdict {
        let seen = self.servers.get(server).copied().flatten();
        let Some((seen, claim)) = seen.and_then(|seen| Some((seen, seen.claim?))) else {
            return PrimaryVerdict::Undecided; // not of this pool, or disabled meanwhile
        };
        match self.in_force() {
            Some(primary) if primary == server => PrimaryVerdict::Primary,
            None if seen.is_down || self.known.is_none() && !self.is_complete() => PrimaryVerdict::Undecided,
            _ => PrimaryVerdict::Rejected(self.why_rejected(server, seen, claim)),
        }
    }

    /// All claims of the servers of the pool that are not down.
    fn claims(&self) -> impl Iterator<Item = (&Arc<str>, Seen, Claim)> {
        self.servers.iter().filter_map(|(label, seen)| {
            let seen = (*seen).filter(|seen| !seen.is_down)?;
            Some((label, seen, seen.claim?))
        })
    }

    /// Whether all servers of the pool have been checked.
    fn is_complete(&self) -> bool {
        self.servers.values().all(Option::is_some)
    }

    /// The claims to a higher timeline than what is remembered, of the same database. Up to the highest timeline that an
    /// operator has overruled, only promotions since then count.
    fn higher(&self, known: &KnownPrimary) -> Vec<Arc<str>> {
        if known.highest_timeline().is_none() {
            return Vec::new(); // there are none
        }
        let is_higher = |(_, seen, claim): &(&Arc<str>, Seen, Claim)| {
            is_same_system(seen.system_identifier, known.system_identifier)
                && claim.timeline > known.timeline
                && (seen.was_replica || claim.timeline > known.overruled)
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
                self.contest_equals_of(server);
            }
            let seen = self.servers.get(server).copied().flatten();
            if let (Some(seen), Some(known)) = (seen, &mut self.known) {
                known.system_identifier = known.system_identifier.or(seen.system_identifier);
                known.timeline = known.timeline.or_else(|| seen.claim?.timeline);
            }
            return;
        }
        self.decide_without(&known);
    }

    /// All servers have a system identifier, and it is one other than the remembered one.
    fn is_new_database(&self) -> bool {
        let remembered = self.known.as_ref().and_then(|known| known.system_identifier);
        let mut systems = self
            .servers
            .values()
            .map(|seen| seen.and_then(|seen| seen.system_identifier));
        let Some((old, Some(new))) = remembered.zip(systems.next()) else {
            return false;
        };
        new != old && systems.all(|system| system == Some(new))
    }

    /// Nothing is remembered: accepts the only claim to the highest timeline, once all servers have been checked.
    fn decide_anew(&mut self) {
        let systems = self.claims().filter_map(|(_, seen, _)| seen.system_identifier);
        let is_one_database = systems.collect::<BTreeSet<_>>().len() <= 1;
        let top = self.claims().map(|(.., claim)| claim.timeline).max().flatten();
        // One whose timeline is not known may be on the highest.
        self.settle(|_, claim| !is_one_database || claim.timeline == top || claim.timeline.is_none());
    }

    /// The remembered primary calls itself primary no more. Accepts another server without a higher timeline if there are no
    /// timelines, or if the remembered one has left the pool.
    fn decide_without(&mut self, known: &KnownPrimary) {
        let remembered = self.servers.get(&*known.server);
        let may_follow = match known.timeline {
            None => remembered.is_none_or(|seen| seen.is_some_and(|seen| seen.claim.is_none() || seen.is_down)),
            Some(_) => remembered.is_none() && known.overruled.is_none(),
        };
        if may_follow {
            self.settle(|seen, claim| {
                is_same_system(seen.system_identifier, known.system_identifier)
                    && (known.timeline.is_none() || claim.timeline == known.timeline)
            });
        }
    }

    /// Accepts the only one of these claims, once all servers have been checked. Several are contested from then on.
    fn settle(&mut self, is_candidate: impl Fn(&Seen, &Claim) -> bool) {
        if !self.is_complete() {
            return;
        }
        let candidates = self.claims().filter(|(_, seen, claim)| is_candidate(seen, claim));
        let candidates: Vec<_> = candidates
            .map(|(label, _, claim)| (Arc::clone(label), claim.is_contested))
            .collect();
        match candidates.as_slice() {
            [(only, false)] => self.adopt(only),
            [] | [_] => {}
            several => several.iter().for_each(|(label, _)| self.set_contested(label, true)),
        }
    }

    fn adopt(&mut self, server: &Arc<str>) {
        let Some(Some(seen)) = self.servers.get(server).copied() else {
            return;
        };
        let known = self.known.as_ref();
        let timeline = seen.claim.and_then(|claim| claim.timeline);
        self.known = Some(KnownPrimary {
            server: (**server).into(),
            system_identifier: seen.system_identifier.or_else(|| known?.system_identifier),
            timeline,
            overruled: known
                .and_then(|known| known.overruled)
                .filter(|overruled| Some(*overruled) > timeline),
        });
        self.set_contested(server, false);
        self.contest_equals_of(server);
    }

    /// Marks the claims beside that of the primary in force.
    fn contest_equals_of(&mut self, server: &str) {
        for (label, seen) in &mut self.servers {
            if let Some(Seen { claim: Some(claim), .. }) = seen {
                claim.is_contested |= **label != *server;
            }
        }
    }

    fn set_contested(&mut self, label: &str, is_contested: bool) {
        if let Some(Some(Seen { claim: Some(claim), .. })) = self.servers.get_mut(label) {
            claim.is_contested = is_contested;
        }
    }
}

/// An identifier that is not known is that of any database.
fn is_same_system(one: Option<u64>, other: Option<u64>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

#[cfg(test)]
mod tests;
