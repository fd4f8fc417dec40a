//! How long a replica has been behind its primary: computed only from what checks have seen, and when.
//!
//! The age of the last transaction that a replica has applied is not a measure of that: after a quiet minute, one bulk
//! load would at once make every replica seem a minute behind. Instead, the positions of the primary at earlier checks
//! are remembered. A replica has been behind since the first position that it has not reached.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::facts::{ServerFacts, WalPosition};
use super::histories::Histories;

/// Times that are less than `max_lag / RESOLUTION` apart count as the same. For times older than twice `max_lag`, the
/// limit is `age / RESOLUTION` instead.
const RESOLUTION: u32 = 64;

/// Positions are kept for this time, or for twice `max_lag` if that is longer. The reported lag of a replica that has
/// been behind for longer is at least this time.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A position that is a multiple of this many bytes may be within a record: PostgreSQL writes and sends whole pages (8
/// KiB, unless it was built otherwise) before a record is complete. Other positions are ends of records.
const PAGE_BYTES: u64 = 8 << 10;

/// More than the longest record that a transaction usually writes before it ends: 32 pages and their description. (The
/// record that ends it is soon written as a whole.) A replica applies only whole records, so it may stay up to this far
/// before a position within a record.
const RECORD_BYTES: u64 = 512 << 10;

/// Positions in the order in which they were reached.
#[derive(Clone, Debug, Default)]
struct PositionHistory {
    /// Positions before the latest one, each with the time at which it was first seen. Positions and times increase.
    reached: VecDeque<(Instant, u64)>,
    latest: Option<(Instant, u64)>,
}

impl PositionHistory {
    /// Records a position. Keeps enough to tell how long a server has been behind.
    fn record(&mut self, now: Instant, position: u64, max_lag: Duration) {
        // If the position may be within a record, an earlier one is used instead: every replica can reach that with the
        // whole records written so far.
        let position = if position.is_multiple_of(PAGE_BYTES) {
            position.saturating_sub(RECORD_BYTES)
        } else {
            position
        };
        if let Some(before) = self.latest {
            if position <= before.1 {
                return;
            }
            // A position is left out if those before and after it were seen at nearly the same time.
            let is_near = |(at, _): &(Instant, u64)| now < *at + max_lag / RESOLUTION;
            if !self.reached.back().is_some_and(is_near) {
                self.reached.push_back(before);
            }
        }
        self.latest = Some((now, position));
        self.thin_out(now, max_lag);
    }

    /// Leaves out old positions, the more the older they are: the lag that is reported has an error of about
    /// 1/[`RESOLUTION`] of itself, and the number of positions grows with the logarithm of [`AGE_MAX`] only.
    fn thin_out(&mut self, now: Instant, max_lag: Duration) {
        // Zero if there is no position at this index, so that the loops end.
        let age = |reached: &VecDeque<(Instant, u64)>, index: usize| {
            let at = reached.get(index).map(|(at, _)| *at);
            at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
        };
        // The first position can go once the second one is old enough to stand for the longest lag.
        while age(&self.reached, 1) > AGE_MAX.max(max_lag * 2) {
            self.reached.pop_front();
        }
        let mut index = 1;
        while age(&self.reached, index) > max_lag * 2 {
            let gap = age(&self.reached, index - 1).saturating_sub(age(&self.reached, index + 1));
            if gap < age(&self.reached, index) / RESOLUTION {
                self.reached.remove(index);
            } else {
                index += 1;
            }
        }
    }

    /// Since when, at the latest, a server at this position has been behind; `None`: it is not behind.
    fn behind_since(&self, position: u64) -> Option<Instant> {
        let mut all = self.reached.iter().chain(&self.latest);
        all.find(|(_, reached)| *reached > position).map(|(at, _)| *at)
    }
}

/// The remembered positions of the primary.
#[derive(Clone, Debug)]
struct PrimaryHistory {
    /// The positions that it has reported.
    written: PositionHistory,
    /// When it last reported a position.
    reported_at: Instant,
}

/// The remembered history of a replica.
#[derive(Clone, Debug)]
struct ReplicaHistory {
    /// The positions that it has received, while the present position of its primary is not known.
    received: PositionHistory,
    /// When it was last connected to a server that it follows; if it never was, when it was first seen.
    followed_at: Instant,
    /// When it last reported that it is less than a second behind, or less than `max_lag` if that is shorter; if it
    /// never did, when it was first seen.
    caught_up_at: Instant,
}

/// The lags of the replicas of a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct LagWatch {
    histories: Histories<PrimaryHistory, ReplicaHistory>,
}

impl LagWatch {
    /// Forgets the servers whose label is not known.
    pub(super) fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.histories.retain(is_known);
    }

    /// Forgets the history of this replica: it is a primary now. If it becomes a replica again, its lag counts from
    /// that time.
    pub(super) fn forget_replica(&mut self, label: &str) {
        self.histories.replicas.remove(label);
    }

    /// Records the position of the primary in force.
    pub(super) fn record_primary(&mut self, label: &Arc<str>, facts: &ServerFacts, max_lag: Duration, now: Instant) {
        let Some(WalPosition { written, .. }) = facts.wal else {
            return;
        };
        let initial = PrimaryHistory {
            written: PositionHistory::default(),
            reported_at: now,
        };
        let (primary, _) = self.histories.primary_or(label, facts.timeline, initial);
        primary.written.record(now, written, max_lag);
        primary.reported_at = now;
    }

    /// How long a replica has been behind, at least; `None`: it does not report enough.
    pub(super) fn replica_lag(
        &mut self,
        label: &Arc<str>,
        facts: &ServerFacts,
        max_lag: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let initial = ReplicaHistory {
            received: PositionHistory::default(),
            followed_at: now,
            caught_up_at: now,
        };
        let (replica, primary) = self.histories.replica_or(label, initial);
        let lag_since =
            |since: Option<Instant>| since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if let Some(wal) = facts.wal {
            if wal.is_following {
                replica.followed_at = now;
            }
            let is_recent = |primary: &PrimaryHistory| now.saturating_duration_since(primary.reported_at) <= max_lag;
            let lag_behind = |primary: &PrimaryHistory| lag_since(primary.written.behind_since(wal.applied));
            if let Some(primary) = primary.filter(|primary| is_recent(primary)) {
                replica.received = PositionHistory::default();
                return Some(lag_behind(primary));
            }
            // The position of the primary is not known, or is older than `max_lag`: it may have written more since.
            replica.received.record(now, wal.written, max_lag);
            let behind = lag_since(replica.received.behind_since(wal.applied));
            // What a replica has received says nothing if it has followed no server since the primary was last seen. So
            // the last known position of the primary counts, too. If there is none, the time since the replica last
            // followed a server counts.
            let since_followed = || lag_since(Some(replica.followed_at));
            return Some(behind.max(primary.map_or_else(since_followed, lag_behind)));
        }
        let reported = facts.lag?;
        // A reported lag may jump, for instance when the replica begins to apply a long statement. It counts as at most
        // the time since `caught_up_at`.
        if reported < Duration::from_secs(1).min(max_lag) {
            replica.caught_up_at = now;
        }
        Some(reported.min(lag_since(Some(replica.caught_up_at))))
    }
}

#[cfg(test)]
mod tests;
