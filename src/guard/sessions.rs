//! Counts the open sessions of a guard, all together and of each source. The counts are exact, whichever workers the
//! sessions are on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::{Mutex, MutexGuard};

use super::client_source::{ClientSource, HashedClientSource};

/// Parts of the table, so that workers seldom wait for each other.
const SHARDS: usize = 64;

/// A shard is shrunk when its capacity exceeds `ROOM_RATIO_MAX * (entries + SPARE_ENTRIES)`.
const ROOM_RATIO_MAX: usize = 8;

/// See [`ROOM_RATIO_MAX`]. Without these entries, a shard with few sources would be shrunk all the time.
const SPARE_ENTRIES: usize = 8;

/// The open sessions of a guard. A source is in the table only while it has a session. So the limit of the process's
/// sessions also bounds the size of the table.
#[derive(Debug)]
pub(super) struct SessionTable {
    /// The open sessions of all sources.
    open: AtomicUsize,
    // Blocking mutexes: each is locked for a few lines, when a session begins or ends, and when the sources are shown.
    shards: Box<[Mutex<HashTable<SourceSessions>>]>,
}

/// The open sessions of one source.
#[derive(Debug)]
struct SourceSessions {
    source: HashedClientSource,
    sessions: u32,
}

/// The limit that a session would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The limit of all sessions together.
    All,
    /// The limit of the sessions of its source.
    Source,
}

impl SessionTable {
    /// A table without sessions.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        })
    }

    /// Counts a session of a source, unless it would exceed a limit: `max` sessions in all, or `max_of_source` of this
    /// source. `None`: there is no such limit.
    pub(super) fn enter(
        self: &Arc<Self>,
        source: HashedClientSource,
        max: Option<u32>,
        max_of_source: Option<u32>,
    ) -> Result<CountedSession, Full> {
        let mut shard = self.shard(&source);
        let entry = shard.entry(source.hash, |other| other.source == source, hash);
        let sessions_of_source = match &entry {
            Entry::Occupied(entry) => entry.get().sessions,
            Entry::Vacant(_) => 0,
        };
        if max_of_source.is_some_and(|max| sessions_of_source >= max) {
            return Err(Full::Source);
        }
        // Nothing is counted before both limits allow it: a refused session must not use up the limit of others.
        let next = |open| max.is_none_or(|max| open < max as usize).then_some(open + 1);
        if self.open.fetch_update(Relaxed, Relaxed, next).is_err() {
            return Err(Full::All);
        }
        entry
            .or_insert(SourceSessions { source, sessions: 0 })
            .into_mut()
            .sessions += 1;
        drop(shard);
        Ok(CountedSession {
            table: Arc::clone(self),
            source,
        })
    }

    /// How many sessions are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// How many sources have open sessions.
    pub(super) fn sources(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The sources with the most sessions, at most `shown_max`, the busiest first.
    pub(super) fn top(&self, shown_max: usize) -> Vec<(ClientSource, u32)> {
        let mut top: Vec<(ClientSource, u32)> = Vec::new();
        for shard in &self.shards {
            top.extend(shard.lock().iter().map(|entry| (entry.source.source, entry.sessions)));
            top.sort_unstable_by_key(|(source, sessions)| (std::cmp::Reverse(*sessions), *source));
            top.truncate(shown_max);
        }
        top
    }

    fn shard(&self, source: &HashedClientSource) -> MutexGuard<'_, HashTable<SourceSessions>> {
        // Bits from the middle of the hash: the hash table in a shard uses the lowest and the highest.
        self.shards[(source.hash >> 32) as usize % SHARDS].lock()
    }
}

fn hash(entry: &SourceSessions) -> u64 {
    entry.source.hash
}

/// A session in the counts of a guard. Dropping this value removes the session from the counts, but does not end it.
#[derive(Debug)]
#[must_use = "a session that is dropped is not counted any more"]
pub(super) struct CountedSession {
    table: Arc<SessionTable>,
    source: HashedClientSource,
}

impl Drop for CountedSession {
    fn drop(&mut self) {
        self.table.open.fetch_sub(1, Relaxed);
        let mut shard = self.table.shard(&self.source);
        let is_this = |other: &SourceSessions| other.source == self.source;
        if let Ok(mut entry) = shard.find_entry(self.source.hash, is_this) {
            entry.get_mut().sessions -= 1;
            if entry.get().sessions == 0 {
                entry.remove();
            }
        }
        if shard.capacity() > ROOM_RATIO_MAX * (shard.len() + SPARE_ENTRIES) {
            shard.shrink_to_fit(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::client_source::SourceBits;
    use super::*;

    fn source(number: u32) -> HashedClientSource {
        ClientSource::new(IpAddr::from(number.to_be_bytes()).into(), SourceBits::default()).into()
    }

    proptest! {
        /// Sessions of a few sources begin and end in any order; the limits are exact at every moment.
        #[test]
        fn both_limits_are_exact(steps in proptest::collection::vec((0u32..4, any::<bool>()), 1..200)) {
            const ALL: u32 = 8;
            const EACH: u32 = 3;
            let table = SessionTable::new();
            let mut open: Vec<(u32, CountedSession)> = Vec::new();
            for (number, begins) in steps {
                let of_source = open.iter().filter(|(of, _)| *of == number).count() as u32;
                if begins {
                    let entered = table.enter(source(number), Some(ALL), Some(EACH));
                    let expected = match (of_source >= EACH, open.len() as u32 >= ALL) {
                        (true, _) => Some(Full::Source),
                        (false, true) => Some(Full::All),
                        (false, false) => None,
                    };
                    prop_assert_eq!(entered.as_ref().err().copied(), expected);
                    open.extend(entered.ok().map(|session| (number, session)));
                } else if let Some(at) = open.iter().position(|(of, _)| *of == number) {
                    drop(open.swap_remove(at));
                }
                let mut sources: Vec<_> = open.iter().map(|(of, _)| of).collect();
                sources.sort_unstable();
                sources.dedup();
                prop_assert_eq!((table.open(), table.sources()), (open.len(), sources.len()));
            }
        }
    }

    #[test]
    fn concurrent_sessions_never_exceed_a_limit() {
        let table = SessionTable::new();
        let (most_of_source, most_open) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..10_000 {
                        if let Ok(_session) = table.enter(source(number % 2), Some(3), Some(2)) {
                            most_of_source.fetch_max(table.top(1)[0].1 as usize, Relaxed);
                            most_open.fetch_max(table.open(), Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=2).contains(&most_of_source.into_inner()));
        assert!((1..=3).contains(&most_open.into_inner()));
        assert_eq!((table.open(), table.sources()), (0, 0));
    }

    #[test]
    fn after_a_flood_the_table_is_small_again() {
        let table = SessionTable::new();
        // About 1,000 sources for each shard.
        let flood: Vec<_> = (0..65_000)
            .map(|number| table.enter(source(number), None, None))
            .collect();
        assert_eq!(table.sources(), 65_000);
        assert_eq!(table.top(2).len(), 2);
        drop(flood);
        let room: usize = table.shards.iter().map(|shard| shard.lock().capacity()).sum();
        let room_max = ROOM_RATIO_MAX * SPARE_ENTRIES * SHARDS;
        assert!(room <= room_max, "room for {room} sources");
    }
}
