//! The current candidates of a pool, rebuilt after a change and not at each pick.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Server;
use super::candidates::{Candidate, CandidateSet};
use super::changes::ChangeCounter;
use super::round_robin::RoundRobin;
use super::server_observer::ServerObserver;

/// What a pick reads.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// The number of changes at the time it was built.
    version: u64,
    pub(super) set: CandidateSet,
    /// The order of turns over `set`; empty for policies other than round-robin.
    pub(super) round_robin: RoundRobin,
}

impl Snapshot {
    /// Takes the next turn of round-robin; `None`: no candidates.
    pub(super) fn next_turn(&self) -> Option<&Candidate> {
        self.set.candidates.get(self.round_robin.next()?)
    }
}

/// Holds the current snapshot of a pool.
#[derive(Debug)]
pub(super) struct SnapshotCell {
    current: ArcSwap<Snapshot>,
    changes: Arc<ChangeCounter>,
    // A blocking mutex: held while a snapshot is built, so that only one worker rebuilds it after a change.
    rebuilding: Mutex<()>,
}

impl SnapshotCell {
    /// A cell whose first snapshot is built at the first [`Self::get`]. Changes are also reported to the queue.
    pub(super) fn new(queue: Arc<dyn ServerObserver>) -> Self {
        Self {
            current: ArcSwap::default(),
            changes: ChangeCounter::new(queue),
            rebuilding: Mutex::new(()),
        }
    }

    /// Makes later changes of these servers invalidate the snapshot.
    pub(super) fn watch<'a>(&self, servers: impl Iterator<Item = &'a Arc<Server>>) {
        servers.for_each(|server| server.subscribe(&self.changes));
    }

    /// Invalidates the snapshot: the list of servers has changed.
    pub(super) fn invalidate(&self) {
        self.changes.increment();
    }

    /// The current snapshot. It includes every change that was complete before this call. If the latest snapshot is out
    /// of date, `build` makes the next one from it and the servers' state. Otherwise, this takes no lock and allocates
    /// nothing.
    pub(super) fn get(
        &self,
        now: Instant,
        build: impl FnOnce(&Snapshot) -> (CandidateSet, RoundRobin),
    ) -> Guard<Arc<Snapshot>> {
        let snapshot = self.current.load();
        if self.is_current(&snapshot, now) {
            return snapshot;
        }
        drop(snapshot);
        self.rebuild(now, build)
    }

    fn is_current(&self, snapshot: &Snapshot, now: Instant) -> bool {
        snapshot.version == self.changes.count() && snapshot.set.is_valid_at(now)
    }

    #[cold]
    fn rebuild(
        &self,
        now: Instant,
        build: impl FnOnce(&Snapshot) -> (CandidateSet, RoundRobin),
    ) -> Guard<Arc<Snapshot>> {
        let _one_at_a_time = self.rebuilding.lock();
        let latest = self.current.load();
        if self.is_current(&latest, now) {
            return latest; // another worker has built it meanwhile
        }
        let version = self.changes.count(); // before any state is read
        let (set, round_robin) = build(&latest);
        let next = Arc::new(Snapshot {
            version,
            set,
            round_robin,
        });
        self.current.store(Arc::clone(&next));
        Guard::from_inner(next)
    }
}
