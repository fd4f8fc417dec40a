//! Notifies pools of changes in the state of their servers, so that they rebuild their snapshots.
//!
//! A server may belong to the pools of several plans at once. Each pool has a change counter and subscribes it to its
//! servers; a server increments the counters of its subscribers when it changes. The pool compares the counter with the
//! value at which its snapshot was built.
//!
//! No change is lost: state is stored before the counter is incremented (release), and the counter is read (acquire)
//! before the state is. A snapshot that misses a change therefore has a lower count than the counter.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::server_observer::ServerObserver;

/// Counts changes of the state that a snapshot is built from. Each pick reads the counter, hence its own cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct ChangeCounter {
    count: AtomicU64,
    /// The clients that wait for a server: they have to look again after each change.
    queue: Arc<dyn ServerObserver>,
}

impl ChangeCounter {
    /// A counter that starts at 1, so that the default snapshot (version 0) is out of date.
    pub(super) fn new(queue: Arc<dyn ServerObserver>) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicU64::new(1),
            queue,
        })
    }

    /// The number of changes, plus 1. To build a snapshot, read this before any of the state.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Acquire)
    }

    /// Counts a change. Call it after the change was stored.
    pub(super) fn increment(&self) {
        self.count.fetch_add(1, Release);
        self.queue.notify_change();
    }
}

/// The counters that a server increments when it changes.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    // A blocking mutex: held for a few lines, and only when a server changes or joins a pool.
    counters: Mutex<Vec<Weak<ChangeCounter>>>,
}

impl Subscribers {
    /// Adds a counter, unless it is there already. Removes the counters of pools that are gone.
    pub(super) fn add(&self, counter: &Arc<ChangeCounter>) {
        let mut counters = self.counters.lock();
        counters.retain(|other| other.strong_count() > 0 && other.as_ptr() != Arc::as_ptr(counter));
        counters.push(Arc::downgrade(counter));
    }

    /// Counts a change in all subscribed pools. Call it after the change was stored.
    pub(super) fn notify(&self) {
        for counter in self.counters.lock().iter().filter_map(Weak::upgrade) {
            counter.increment();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::PoolQueue;

    #[test]
    fn a_pool_is_subscribed_once_and_a_dropped_pool_no_longer() {
        let subscribers = Subscribers::default();
        let kept = ChangeCounter::new(Arc::<PoolQueue>::default());
        for _ in 0..100 {
            subscribers.add(&ChangeCounter::new(Arc::<PoolQueue>::default()));
            subscribers.add(&kept);
        }
        assert_eq!(subscribers.counters.lock().len(), 1);
        subscribers.notify();
        assert_eq!(kept.count(), 2, "subscribed once, incremented once");
    }
}
