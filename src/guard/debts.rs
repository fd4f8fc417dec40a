//! The debts of sources, in a table of fixed size. A source's debt is what it has taken of its rate; it is paid as time
//! passes.
//!
//! The table does not grow, however many addresses a flood comes from. It consists of sets of eight places; the hash of
//! a source chooses its set. A source whose debt is paid is forgotten without loss: when it comes again, it starts
//! without a debt. Where all eight places of a set hold unpaid debts, the smallest is forgotten to make room, and is
//! counted.
//!
//! To have the debt of one source forgotten, an attacker needs eight other sources in the same set: seven with larger
//! debts, and one more that needs a place. The key of the hash is random for each process, so that no client knows
//! which sources share a set. The table has `2 × sources_max` places, so the attacker needs about as many addresses.
//! Each of the seven must open enough sessions for a larger debt, before the debt that is to be forgotten is paid.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::client_source::HashedClientSource;
use super::rate::{Nanos, Rate};

/// The places of a set.
const WAYS: usize = 8;

/// The places for each source that is to be remembered. Sources fall into sets at random: with twice as many places as
/// sources, 2 % of the sets overflow when `sources_max` sources have debts at once.
const PLACES_PER_SOURCE: usize = 2;

/// The debts of sources. The table keeps a hash of each source, not its address.
#[derive(Debug)]
pub(super) struct DebtTable {
    // Blocking mutexes, locked for a few lines; two workers seldom want the same set.
    sets: Box<[Mutex<DebtSet>]>,
    evictions: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct DebtSet([Debt; WAYS]);

/// A source's debt. A place that was never used has a debt that was paid at the start.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    source_hash: u64,
    paid_at: Nanos,
}

impl DebtTable {
    /// An empty table for this many sources.
    pub(super) fn new(sources_max: usize) -> Self {
        let sets = (sources_max * PLACES_PER_SOURCE).div_ceil(WAYS).max(1);
        Self {
            sets: (0..sets).map(|_| Mutex::default()).collect(),
            evictions: AtomicU64::new(0),
        }
    }

    /// A table for another number of sources, with the debts of this one.
    pub(super) fn resized(&self, sources_max: usize, now: Nanos) -> Self {
        let next = Self {
            evictions: AtomicU64::new(self.evictions()),
            ..Self::new(sources_max)
        };
        for set in &self.sets {
            for debt in set.lock().0.iter().filter(|debt| debt.paid_at > now) {
                let mut next_set = next.set_of(debt.source_hash).lock();
                *next.claim_place(&mut next_set, debt.source_hash, now) = *debt;
            }
        }
        next
    }

    /// Takes one session from a source's rate. Returns whether the rate allows it.
    pub(super) fn take(&self, source: HashedClientSource, rate: Rate, now: Nanos) -> bool {
        let source_hash = source.hash;
        let mut set = self.set_of(source_hash).lock();
        if let Some(debt) = set.0.iter_mut().find(|debt| debt.source_hash == source_hash) {
            let (paid_at, is_taken) = rate.take(debt.paid_at, now);
            debt.paid_at = paid_at;
            return is_taken;
        }
        let (paid_at, is_taken) = rate.take(0, now); // always taken: nothing is owed
        *self.claim_place(&mut set, source_hash, now) = Debt { source_hash, paid_at };
        is_taken
    }

    /// Gives back what [`Self::take`] has taken, if the source is still remembered.
    pub(super) fn give_back(&self, source: HashedClientSource, rate: Rate) {
        let mut set = self.set_of(source.hash).lock();
        if let Some(debt) = set.0.iter_mut().find(|debt| debt.source_hash == source.hash) {
            debt.paid_at = rate.give_back(debt.paid_at);
        }
    }

    /// How many unpaid debts were forgotten.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    fn set_of(&self, source_hash: u64) -> &Mutex<DebtSet> {
        // The high bits choose the set, evenly for any number of sets.
        let index = (u128::from(source_hash) * self.sets.len() as u128) >> 64;
        &self.sets[index as usize] // the index is below the number of sets
    }

    /// The place for a source that has no debt in the set: that of the debt which is paid first. If that debt is still
    /// unpaid, it is counted as forgotten.
    fn claim_place<'a>(&self, set: &'a mut DebtSet, source_hash: u64, now: Nanos) -> &'a mut Debt {
        let is_owed = |debt: &Debt| debt.source_hash == source_hash && debt.paid_at > now;
        debug_assert!(!set.0.iter().any(is_owed));
        let debts = set.0.iter_mut();
        let smallest = debts.min_by_key(|debt| debt.paid_at).expect("a set has places");
        if smallest.paid_at > now {
            self.evictions.fetch_add(1, Relaxed);
        }
        smallest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::IpAddr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::client_source::{ClientSource, SourceBits};
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn source(number: u32) -> HashedClientSource {
        ClientSource::new(IpAddr::from(number.to_be_bytes()).into(), SourceBits::default()).into()
    }

    fn rate(burst: u32) -> Rate {
        Rate::new(1, Duration::from_secs(1), burst)
    }

    #[test]
    fn almost_all_sources_up_to_the_maximum_are_remembered() {
        const SOURCES: u32 = 100_000;
        let table = DebtTable::new(SOURCES as usize);
        assert!((0..SOURCES).all(|number| table.take(source(number), rate(1), SECOND)));
        let forgotten = (0..SOURCES)
            .filter(|number| table.take(source(*number), rate(1), SECOND))
            .count();
        assert!(table.evictions() >= forgotten as u64, "what is forgotten is counted");
        assert!(forgotten < SOURCES as usize / 50, "{forgotten} of {SOURCES} forgotten");
    }

    #[test]
    fn a_debt_at_a_low_rate_is_soon_paid_at_a_higher_rate() {
        let (table, low) = (DebtTable::new(10), Rate::new(100, Duration::from_secs(3_600), 100));
        (0..100).for_each(|_| assert!(table.take(source(1), low, SECOND)));
        assert!(!table.take(source(1), low, SECOND), "an hour is owed");
        let high = Rate::new(100, Duration::from_secs(1), 1);
        assert!(!table.take(source(1), high, SECOND));
        assert!(table.take(source(1), high, SECOND + SECOND / 100));
    }

    #[test]
    fn resizing_keeps_the_debts() {
        let table = DebtTable::new(100);
        for number in 0..WAYS as u32 {
            // As many as one set holds, so that none is forgotten.
            assert!(table.take(source(number), rate(1), SECOND));
        }
        let larger = table.resized(1_000, SECOND);
        assert!((0..WAYS as u32).all(|number| !larger.take(source(number), rate(1), SECOND)));
    }

    proptest! {
        /// Compares a table of one set with a list of all debts.
        #[test]
        fn paid_debts_make_room_first_and_then_the_smallest(
            steps in proptest::collection::vec((0u32..20, 0u64..SECOND), 1..300),
        ) {
            let table = DebtTable::new(WAYS / PLACES_PER_SOURCE);
            prop_assert_eq!(table.sets.len(), 1);
            let rate = rate(3);
            let mut debts: HashMap<u32, Nanos> = HashMap::new();
            let (mut now, mut evictions) = (SECOND, 0);
            for (number, gap) in steps {
                now += gap;
                debts.retain(|_, paid_at| *paid_at > now); // without loss
                let (paid_at, expected) = rate.take(debts.get(&number).copied().unwrap_or(0), now);
                prop_assert_eq!(table.take(source(number), rate, now), expected);
                if !expected {
                    continue;
                }
                if !debts.contains_key(&number) && debts.len() == WAYS {
                    let least = *debts.values().min().unwrap();
                    // The table may have forgotten any of several equal debts: find out which.
                    let smallest = debts.iter().filter(|(_, paid_at)| **paid_at == least).map(|(n, _)| *n);
                    let held = |n: &u32| table.sets[0].lock().0.iter().any(|debt| debt.source_hash == source(*n).hash);
                    let evicted: Vec<_> = smallest.filter(|n| !held(n)).collect();
                    prop_assert_eq!(evicted.len(), 1, "one of the smallest, and only one");
                    debts.remove(&evicted[0]);
                    evictions += 1;
                }
                debts.insert(number, paid_at);
                prop_assert_eq!(table.evictions(), evictions);
            }
        }

        #[test]
        fn what_is_given_back_can_be_taken_again(burst in 1u32..20) {
            let (table, rate) = (DebtTable::new(10), rate(burst));
            for _ in 0..burst {
                prop_assert!(table.take(source(1), rate, SECOND));
            }
            prop_assert!(!table.take(source(1), rate, SECOND));
            table.give_back(source(1), rate);
            prop_assert!(table.take(source(1), rate, SECOND));
            prop_assert!(!table.take(source(1), rate, SECOND));
        }
    }
}
