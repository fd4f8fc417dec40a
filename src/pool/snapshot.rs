//! The pool's current candidates, rebuilt when something has changed and not at each pick.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::time::Instant;

use super::Server;
use super::candidates::{Candidate, CandidateSet};
use super::changes::ChangeCounter;
use super::round_robin::RoundRobin;

/// What a pick works with.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// The count of changes it was built at.
    version: u64,
    pub(super) set: CandidateSet,
    /// The order of turns over `set`; empty for the other policies.
    pub(super) round_robin: RoundRobin,
}

impl Snapshot {
    /// The candidate whose turn it is; `None` if there is none.
    pub(super) fn next_turn(&self) -> Option<&Candidate> {
        self.set.candidates.get(self.round_robin.next()?)
    }
}

/// Holds the current snapshot of a pool.
#[derive(Debug)]
pub(super) struct SnapshotCell {
    current: ArcSwap<Snapshot>,
    changes: Arc<ChangeCounter>,
    // A std mutex: held while a snapshot is built, so that a change is not worked out by every worker.
    rebuilding: Mutex<()>,
}

impl SnapshotCell {
    /// A cell whose first snapshot is built when it is first asked for.
    pub(super) fn new() -> Self {
        Self {
            current: ArcSwap::default(),
            changes: ChangeCounter::new(),
            rebuilding: Mutex::new(()),
        }
    }

    /// Rebuilds the snapshot after any later change of these servers too.
    pub(super) fn watch<'a>(&self, servers: impl Iterator<Item = &'a Arc<Server>>) {
        servers.for_each(|server| server.notify_changes(&self.changes));
    }

    /// The list of servers has changed.
    pub(super) fn invalidate(&self) {
        self.changes.increment();
    }

    /// The snapshot as of now. `build` is called when the latest one is out of date; it gets that one, and reads the facts
    /// anew.
    ///
    /// Every change that was complete before this call is seen. Without one it takes no lock and allocates nothing.
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
        snapshot.version == self.changes.count() && snapshot.set.holds_at(now)
    }

    #[cold]
    fn rebuild(
        &self,
        now: Instant,
        build: impl FnOnce(&Snapshot) -> (CandidateSet, RoundRobin),
    ) -> Guard<Arc<Snapshot>> {
        let _one_at_a_time = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load();
        if self.is_current(&before, now) {
            return before; // another worker has just built it
        }
        let version = self.changes.count(); // before any fact is read
        let (set, round_robin) = build(&before);
        let next = Arc::new(Snapshot {
            version,
            set,
            round_robin,
        });
        self.current.store(Arc::clone(&next));
        Guard::from_inner(next)
    }
}
