//! How a pool learns that a fact its snapshot was built from has changed.
//!
//! A server does not know its pools: the plan in force and the plan before it may share it. Each pool has a counter, and
//! subscribes it to its servers; a server that has changed increments the counters of its subscribers. The pool compares
//! the counter with the value its snapshot was built at.
//!
//! No change is lost: a fact is stored before the counter is incremented (release), and the counter is read (acquire)
//! before the facts are. A snapshot that misses a change therefore has an older count than the counter has by then.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Counts the changes of everything a snapshot is built from. Read by each pick, hence on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct ChangeCounter(AtomicU64);

impl ChangeCounter {
    /// A counter at 1: a snapshot built at 0 is out of date from the start.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1)))
    }

    /// Changes so far. Whoever builds a snapshot reads this before any of the facts.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// A fact has changed; to be called after the fact was stored.
    pub(super) fn increment(&self) {
        self.0.fetch_add(1, Release);
    }
}

/// The counters that a server increments when it changes.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    // A std mutex: held for a few lines, and only when a server changes or joins a pool.
    counters: Mutex<Vec<Weak<ChangeCounter>>>,
}

impl Subscribers {
    /// Increments this counter from now on, for as long as its pool exists.
    pub(super) fn add(&self, counter: &Arc<ChangeCounter>) {
        let mut counters = self.locked();
        counters.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(counter));
        counters.push(Arc::downgrade(counter));
    }

    /// The server has changed; to be called after the fact was stored.
    pub(super) fn notify(&self) {
        for counter in self.locked().iter().filter_map(Weak::upgrade) {
            counter.increment();
        }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Weak<ChangeCounter>>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_is_gone_leaves_no_subscription_behind() {
        let subscribers = Subscribers::default();
        let stays = ChangeCounter::new();
        for _ in 0..100 {
            subscribers.add(&ChangeCounter::new());
            subscribers.add(&stays);
        }
        assert_eq!(subscribers.locked().len(), 1);
        subscribers.notify();
        assert_eq!(stays.count(), 2, "subscribed once, incremented once");
    }
}
