//! Which replicas do not follow the primary in force, which is the known primary while it is up and its claim holds.
//! This is computed only from what checks have seen.
//!
//! A replica never applies what its primary has not written. If a check of the primary finds that the primary has
//! written less than a replica had applied at an earlier check, the replica has data of its own: it still follows an
//! old primary, or has followed it for too long. The same is true of a replica that goes on along an older timeline
//! beyond the point where the primary's timeline began, and of one that receives other changes than the primary sends.

use std::sync::Arc;

use super::facts::{ServerFacts, Stream};
use super::histories::{Histories, TimelineHistory};

/// The known facts about the primary in force, on its timeline.
#[derive(Clone, Copy, Debug, Default)]
struct PrimaryTrace {
    /// The first position at which a check saw it on this timeline.
    first: Option<u64>,
    /// What its latest check found.
    latest: Trace,
}

/// How far a server has come, and in which stream of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trace {
    /// Up to where a replica has applied the WAL, or a primary has written it.
    position: Option<u64>,
    /// Its [`Stream::Lineage`].
    lineage: Option<u128>,
}

impl Trace {
    fn new(facts: &ServerFacts, position: Option<u64>) -> Self {
        let lineage = match facts.stream {
            Some(Stream::Lineage(lineage)) => Some(lineage),
            _ => None,
        };
        Self { position, lineage }
    }

    /// Whether the replica with this trace has applied more than the primary has written, or receives other changes.
    fn has_diverged_from(&self, primary: &Self) -> bool {
        let is_beyond = self
            .position
            .zip(primary.position)
            .is_some_and(|(own, primary)| own > primary);
        let lineages = self.lineage.zip(primary.lineage);
        is_beyond || lineages.is_some_and(|(own, primary)| own != primary)
    }
}

/// The known facts about a replica.
#[derive(Clone, Copy, Debug, Default)]
struct ReplicaTrace {
    latest: Trace,
    /// The value of `latest` at the end of the latest check of the primary. The primary's next check compares it with
    /// what the primary has written by then.
    before: Option<Trace>,
    /// Whether the latest check of the primary has found that the replica has diverged, and no check of the replica has
    /// refuted that since.
    has_diverged: bool,
}

/// The traces of the servers of a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct DivergenceWatch {
    traces: Histories<PrimaryTrace, ReplicaTrace>,
}

impl DivergenceWatch {
    /// Forgets the servers whose label is no longer known.
    pub(super) fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.traces.retain(is_known);
    }

    /// Takes note of what a check of the primary in force has found.
    pub(super) fn record_primary(&mut self, label: &Arc<str>, facts: &ServerFacts) {
        let latest = Trace::new(facts, facts.wal.map(|wal| wal.written));
        let (primary, was_seen_on_timeline) = self.traces.primary_or(label, facts.timeline, PrimaryTrace::default());
        primary.first = primary.first.or(latest.position);
        primary.latest = latest;
        for replica in self.traces.replicas.values_mut() {
            // An earlier result is not kept: the replica may have been set up anew since then, and may be ahead of the
            // primary's latest known position although it has not diverged.
            replica.has_diverged =
                was_seen_on_timeline && replica.before.is_some_and(|before| before.has_diverged_from(&latest));
            replica.before = Some(replica.latest);
        }
    }

    /// Takes note of what a check of a replica has found. Returns why it does not follow this primary, if that is
    /// certain.
    pub(super) fn observe_replica(&mut self, label: &Arc<str>, facts: &ServerFacts, primary: &str) -> Option<String> {
        let latest = Trace::new(facts, facts.wal.map(|wal| wal.applied));
        // A replica whose position is lower than before was set up anew, and a replica with another lineage follows
        // another primary. In both cases, what was known about the replica is forgotten.
        let goes_on =
            |known: &ReplicaTrace| known.latest.position <= latest.position && known.latest.lineage == latest.lineage;
        let known = self
            .traces
            .replicas
            .get(label)
            .copied()
            .filter(goes_on)
            .unwrap_or_default();
        let primary = self.traces.primary().filter(|traced| *traced.label == *primary);
        let has_diverged =
            known.has_diverged && primary.is_some_and(|primary| latest.has_diverged_from(&primary.history.latest));
        let why = primary.and_then(|primary| match has_diverged {
            true => Some(why_diverged(&latest, primary)),
            false => why_outdated(facts.restartpoint?, primary),
        });
        let replica = ReplicaTrace {
            latest,
            has_diverged,
            ..known
        };
        self.traces.replicas.insert(Arc::clone(label), replica);
        why
    }
}

fn why_diverged(replica: &Trace, primary: &TimelineHistory<PrimaryTrace>) -> String {
    let label = &primary.label;
    match (replica.position, primary.history.latest.position) {
        (Some(applied), Some(written)) => format!(
            "not a replica of {label}: it has applied the WAL up to {}, and {label} has written it up to {}",
            Lsn(applied),
            Lsn(written)
        ),
        _ => format!("not a replica of {label}: it follows another primary"),
    }
}

/// Why a replica that was at this position of this timeline does not follow the primary, if that is certain. The
/// primary left each older timeline at or before the first position that was seen on its own timeline. A replica that
/// is beyond this position on an older timeline has WAL that the primary does not have.
fn why_outdated((timeline, position): (u32, u64), primary: &TimelineHistory<PrimaryTrace>) -> Option<String> {
    let label = &primary.label;
    let newer = primary.timeline.filter(|newer| *newer > timeline)?;
    let first = primary.history.first.filter(|first| *first < position)?;
    let (position, first) = (Lsn(position), Lsn(first));
    Some(format!(
        "not a replica of {label}: it is on timeline {timeline} at {position}, and {label} was on {newer} at {first}"
    ))
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
    use crate::pool::WalPosition;

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

    /// Runs checks in this order, each given by the server, its timeline if it is the primary, and its position.
    /// Returns for each check of a replica whether it has found that the replica does not follow the primary.
    fn diverged(checks: &[(&str, Option<u32>, u64)]) -> Vec<bool> {
        let mut watch = DivergenceWatch::default();
        let (mut found, mut primary) = (Vec::new(), "");
        for (name, timeline, position) in checks {
            let (label, facts) = (Arc::from(*name), at(*timeline, *position));
            match timeline {
                Some(_) => {
                    watch.record_primary(&label, &facts);
                    primary = name;
                }
                None => found.push(watch.observe_replica(&label, &facts, primary).is_some()),
            }
        }
        found
    }

    #[test]
    fn a_replica_checked_earlier_but_ahead_of_the_primary_has_diverged() {
        let of_old_primary = [
            ("b", Some(2), 100),
            ("c", None, 900),
            ("b", Some(2), 110), // may have begun before the check of c
            ("c", None, 900),
            ("b", Some(2), 120),
            ("c", None, 950),
            ("b", Some(2), 990), // written meanwhile
            ("c", None, 950),
        ];
        assert_eq!(diverged(&of_old_primary), [false, false, true, false]);
        let set_up_anew = [
            ("b", Some(2), 100),
            ("c", None, 900),
            ("b", Some(2), 110),
            ("c", None, 120), // before the next check of the primary
            ("b", Some(2), 130),
            ("c", None, 140),
        ];
        assert_eq!(diverged(&set_up_anew), [false; 3]);
        let overtaken_by_primary = [
            ("b", Some(2), 100),
            ("c", None, 900),
            ("b", Some(2), 110),
            ("b", Some(2), 120),
            ("c", None, 900),     // found to have diverged
            ("b", Some(2), 2000), // beyond the 900 of c: c may have been set up anew
            ("c", None, 2010),
            ("b", Some(2), 2020),
            ("c", None, 2030),
        ];
        assert_eq!(diverged(&overtaken_by_primary), [false, true, false, false]);
    }

    #[test]
    fn a_replica_of_a_busy_primary_never_counts_as_diverged() {
        let mut checks = Vec::new();
        for round in 1..100 {
            checks.push(("a", Some(1), round * 1000));
            checks.push(("b", None, round * 1000 + 900)); // it is checked later
        }
        assert!(diverged(&checks).iter().all(|has_diverged| !has_diverged));
        // A new primary begins below where the replicas of the old one were, and has reported no later position yet.
        assert_eq!(
            diverged(&[
                ("a", Some(1), 900),
                ("c", None, 900),
                ("b", Some(2), 100),
                ("c", None, 900)
            ]),
            [false, false]
        );
    }

    #[test]
    fn a_replica_that_receives_other_changes_than_the_primary_sends_is_found_once_the_primary_was_checked_again() {
        let facts = |lineage| ServerFacts {
            stream: Some(Stream::Lineage(lineage)),
            ..ServerFacts::default()
        };
        let mut watch = DivergenceWatch::default();
        let (b, c) = (Arc::from("b"), Arc::from("c"));
        let mut check = |server: &str, lineage| match server {
            "b" => {
                watch.record_primary(&b, &facts(lineage));
                None
            }
            _ => watch.observe_replica(&c, &facts(lineage), "b"),
        };
        for (server, lineage) in [("c", 1), ("b", 2), ("c", 1), ("b", 2)] {
            assert_eq!(check(server, lineage), None);
        }
        let why = "not a replica of b: it follows another primary";
        assert_eq!(check("c", 1).as_deref(), Some(why));
        assert_eq!(check("c", 1).as_deref(), Some(why), "while the primary is down");
        assert_eq!(check("c", 2), None, "it follows the primary");
        check("b", 3); // the primary was restarted
        assert_eq!(check("c", 2), None, "it may not have received the new lineage yet");
    }

    #[test]
    fn a_replica_that_goes_on_along_an_old_timeline_is_found_although_the_primary_has_written_more() {
        let mut watch = DivergenceWatch::default();
        let (b, c) = (Arc::from("b"), Arc::from("c"));
        watch.record_primary(&b, &at(Some(2), 0x100));
        watch.record_primary(&b, &at(Some(2), 0x300));
        let mut check = |restartpoint| {
            let facts = ServerFacts {
                restartpoint: Some(restartpoint),
                ..at(None, 0x200)
            };
            watch.observe_replica(&c, &facts, "b")
        };
        assert_eq!(check((1, 0x100)), None, "it may only be behind");
        assert_eq!(check((2, 0x150)), None);
        let why = "not a replica of b: it is on timeline 1 at 0/150, and b was on 2 at 0/100";
        assert_eq!(check((1, 0x150)).as_deref(), Some(why));
    }

    #[test]
    fn positions_are_formatted_like_in_postgresql() {
        assert_eq!(Lsn(0x1_05e8_a868).to_string(), "1/5E8A868");
    }
}
