//! The numbers of open sessions at the addresses of all servers, close together in memory.
//!
//! `least-conn` reads the number of each candidate. If each number was inside its server, a pick among 1,000 servers
//! would read 1,000 cache lines. It reads the 64 lines of one [`Block`], because 16 numbers share a line.

use std::array;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// The number of counts in a cache line of 64 bytes.
const PER_LINE: usize = 16;

/// The number of cache lines in a block.
const LINES: usize = 64;

/// Counts that are allocated together. They are never freed: a count that no server has any more is used again.
#[repr(align(64))]
struct Block([AtomicU32; LINES * PER_LINE]);

/// The counts that no server has. The last one is taken next.
static UNUSED: Mutex<Vec<&'static AtomicU32>> = Mutex::new(Vec::new());

/// The id of a `LiveCount`, unique among all of this process, past ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CountId(u64);

impl CountId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }

    /// An id that no `LiveCount` has.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self::next()
    }
}

/// The number of open sessions at one address of a pool. The servers of the pool that have this address share it.
#[derive(Debug)]
pub(super) struct LiveCount {
    count: &'static AtomicU32,
    /// See [`Self::not_of_first_server`].
    not_of_first_server: AtomicU32,
    id: CountId,
}

impl LiveCount {
    /// A count of 0.
    pub(super) fn new() -> Self {
        let mut unused = UNUSED.lock();
        if unused.is_empty() {
            unused.extend(new_block());
        }
        Self {
            count: unused.pop().expect("a block has counts"),
            not_of_first_server: AtomicU32::new(0),
            id: CountId::next(),
        }
    }

    /// The id of the count. A later `LiveCount` may use the same memory, but never the same id.
    pub(super) fn id(&self) -> CountId {
        self.id
    }

    /// How many of the sessions do not belong to the first server at the address, for which this `LiveCount` was
    /// created. The servers that share it later add their sessions here, too.
    pub(super) fn not_of_first_server(&self) -> &AtomicU32 {
        &self.not_of_first_server
    }

    /// The count. The caller keeps this `LiveCount` while it uses the count: after a drop, the count may be that of
    /// another address.
    pub(super) fn get(&self) -> &'static AtomicU32 {
        self.count
    }
}

impl Drop for LiveCount {
    fn drop(&mut self) {
        self.count.store(0, Relaxed);
        UNUSED.lock().push(self.count);
    }
}

/// The counts of a new block. The last [`LINES`] of them, which are taken first, lie in different cache lines, so that
/// workers that serve sessions of a few servers do not wait for each other's lines. This order is not kept for counts
/// that are used again.
fn new_block() -> impl Iterator<Item = &'static AtomicU32> {
    let block = Box::leak(Box::new(Block(array::from_fn(|_| AtomicU32::new(0)))));
    let counts: &'static [AtomicU32] = &block.0;
    (0..PER_LINE).flat_map(move |at| counts.iter().skip(at).step_by(PER_LINE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_counts_that_are_taken_first_lie_in_different_cache_lines() {
        let block: Vec<_> = new_block().collect();
        let address = |count: &&AtomicU32| std::ptr::from_ref::<AtomicU32>(count).addr();
        let all: HashSet<_> = block.iter().map(address).collect();
        assert_eq!(all.len(), LINES * PER_LINE, "each count is there once");
        let taken_first = block.iter().rev().take(LINES);
        let lines: HashSet<_> = taken_first.map(|count| address(count) / 64).collect();
        assert_eq!(lines.len(), LINES);
    }

    #[test]
    fn a_count_starts_at_0_and_has_one_owner() {
        // Other tests of this process take and return counts at the same time.
        for _ in 0..2000 {
            let (one, other) = (LiveCount::new(), LiveCount::new());
            assert_eq!((one.get().load(Relaxed), other.get().load(Relaxed)), (0, 0));
            one.get().store(7, Relaxed);
            assert_eq!(other.get().load(Relaxed), 0);
        }
    }
}
