//! Which replicas follow another history than that of the primary in force: a pure function of what checks have seen.
//!
//! A replica never applies what its primary has not written. One that has applied more than the primary had written at a
//! later check has data of its own: it still follows an old primary, or has followed it too long.

use std::collections::HashMap;
use std::sync::Arc;

use super::facts::{ServerFacts, WalPosition};

/// The latest position of the primary in force.
#[derive(Clone, Debug)]
struct PrimaryPosition {
    label: Arc<str>,
    timeline: Option<u32>,
    written: u64,
}

/// The latest position of a replica.
#[derive(Clone, Copy, Debug)]
struct ReplicaPosition {
    applied: u64,
    /// Where it was when the latest check of the primary ended, before the next one began.
    before: Option<u64>,
    /// Whether a later check of the primary has found that it had not written as much.
    is_beyond: bool,
}

/// The positions of the servers of a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct DivergenceWatch {
    primary: Option<PrimaryPosition>,
    replicas: HashMap<Arc<str>, ReplicaPosition>,
}

impl DivergenceWatch {
    /// Forgets the servers that are not among these.
    pub(super) fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.replicas.retain(|label, _| is_known(label));
        self.primary = self.primary.take().filter(|primary| is_known(&primary.label));
    }

    /// Takes note of what a check of the primary in force has found.
    pub(super) fn record_primary(&mut self, label: &Arc<str>, facts: &ServerFacts) {
        let Some(WalPosition { written, .. }) = facts.wal else {
            return;
        };
        let is_same = |known: &PrimaryPosition| known.label == *label && known.timeline == facts.timeline;
        let is_same = self.primary.as_ref().is_some_and(is_same);
        for replica in self.replicas.values_mut() {
            replica.is_beyond |= is_same && replica.before > Some(written);
            replica.before = Some(replica.applied);
        }
        self.primary = Some(PrimaryPosition {
            label: Arc::clone(label),
            timeline: facts.timeline,
            written,
        });
    }

    /// Takes note of what a check of a replica has found. Returns why it does not follow the primary, if that is certain.
    pub(super) fn observe_replica(&mut self, label: &Arc<str>, facts: &ServerFacts) -> Option<String> {
        let WalPosition { applied, .. } = facts.wal?;
        // One that has gone back was set up anew.
        let known = self.replicas.get(label).filter(|known| known.applied <= applied);
        let was_beyond = known.is_some_and(|known| known.is_beyond);
        let primary = self
            .primary
            .as_ref()
            .filter(|primary| was_beyond && applied > primary.written);
        let replica = ReplicaPosition {
            applied,
            before: known.and_then(|known| known.before),
            is_beyond: primary.is_some(),
        };
        self.replicas.insert(Arc::clone(label), replica);
        let PrimaryPosition {
            label: primary,
            written,
            ..
        } = primary?;
        let (applied, written) = (Lsn(applied), Lsn(*written));
        Some(format!(
            "not a replica of {primary}: it has applied the WAL up to {applied}, and {primary} has written it up to {written}"
        ))
    }
}

/// A position in the WAL as PostgreSQL shows it.
struct Lsn(u64);

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timeline: Option<u32>, position: u64) -> ServerFacts {
        ServerFacts {
            timeline,
            wal: Some(WalPosition {
                written: position,
                applied: position,
                is_following: true,
            }),
            ..ServerFacts::default()
        }
    }

    /// Checks in this order: the server, its timeline if it is the primary, its position. Returns which
    /// checks of replicas have found that they do not follow the primary.
    fn beyond(checks: &[(&str, Option<u32>, u64)]) -> Vec<bool> {
        let mut watch = DivergenceWatch::default();
        let mut found = Vec::new();
        for (label, timeline, position) in checks {
            let (label, facts) = (Arc::from(*label), at(*timeline, *position));
            match timeline {
                Some(_) => watch.record_primary(&label, &facts),
                None => found.push(watch.observe_replica(&label, &facts).is_some()),
            }
        }
        found
    }

    #[test]
    fn a_replica_checked_earlier_but_ahead_of_the_primary_has_diverged() {
        let old = [
            ("b", Some(2), 100),
            ("c", None, 900),
            ("b", Some(2), 110), // may have begun before the check of c
            ("c", None, 900),
            ("b", Some(2), 120),
            ("c", None, 950),
            ("b", Some(2), 990), // written meanwhile
            ("c", None, 950),
        ];
        assert_eq!(beyond(&old), [false, false, true, false]);
        let set_up_anew = [
            ("b", Some(2), 100),
            ("c", None, 900),
            ("b", Some(2), 110),
            ("c", None, 120), // before the next check of the primary
            ("b", Some(2), 130),
            ("c", None, 140),
        ];
        assert_eq!(beyond(&set_up_anew), [false; 3]);
    }

    #[test]
    fn a_replica_of_a_busy_primary_never_counts_as_diverged() {
        let mut checks = Vec::new();
        for round in 1..100 {
            checks.push(("a", Some(1), round * 1000));
            checks.push(("b", None, round * 1000 + 900)); // it is checked later
        }
        assert!(beyond(&checks).iter().all(|is_beyond| !is_beyond));
        // A new primary begins below where the replicas of the old one were, and has told nothing later yet.
        assert_eq!(
            beyond(&[
                ("a", Some(1), 900),
                ("c", None, 900),
                ("b", Some(2), 100),
                ("c", None, 900)
            ]),
            [false, false]
        );
    }

    #[test]
    fn positions_are_formatted_like_in_postgresql() {
        assert_eq!(Lsn(0x1_05e8_a868).to_string(), "1/5E8A868");
    }
}
