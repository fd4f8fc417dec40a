//! `round-robin`: by turns, weighted and smooth.
//!
//! Each turn every candidate's credit grows by its weight; the highest credit wins and pays the sum of the weights of
//! all (nginx's rule). Over a cycle of that sum everybody gets exactly its weight, and the turns of a heavy server are
//! spread out: weights 5, 1, 1 give `a a b a c a a`.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Candidate;

/// Whose turn it is. Credits belong to servers, not to places in the pool: whoever comes or goes, the rest keep
/// theirs. A server that is out keeps its credit as it was, and starts there when it is back.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// By [`Candidate::key`]. Sums to nearly zero, whence each is bounded by a few sums of weights.
    credits: HashMap<u64, i64, BuildHasherDefault<AlreadyHashed>>,
}

impl RoundRobin {
    /// The index of the server whose turn it is, the first one among equals; `None` without candidates.
    ///
    /// Candidates of one key (one address under two names) share a credit: the first of them gets the turns of both.
    pub fn choose(&mut self, candidates: &[Candidate<'_>]) -> Option<usize> {
        let mut weights = 0;
        let mut best: Option<(&Candidate<'_>, i64)> = None;
        for candidate in candidates {
            let weight = i64::from(candidate.weight);
            weights += weight;
            let credit = self.credits.entry(candidate.key).or_default();
            *credit += weight;
            if best.is_none_or(|(_, highest)| *credit > highest) {
                best = Some((candidate, *credit));
            }
        }
        let (winner, _) = best?;
        *self.credits.entry(winner.key).or_default() -= weights;
        Some(winner.index)
    }

    /// Forgets all servers but these, so that what is kept is bounded by the pool. What the forgotten had or owed is
    /// spread evenly over the rest, which changes nothing between them, and does not add up as servers come and go.
    pub fn keep_only(&mut self, keys: impl Iterator<Item = u64>) {
        let mut kept = HashMap::default();
        for key in keys {
            kept.extend(self.credits.get_key_value(&key).map(|(key, credit)| (*key, *credit)));
        }
        let sum: i64 = kept.values().sum();
        let each = sum.checked_div(kept.len() as i64).unwrap_or(0);
        kept.values_mut().for_each(|credit| *credit -= each);
        self.credits = kept;
    }
}

/// Keys are hashes; hashing them again gains nothing.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not reached by keys, which are u64; any honest hash will do.
        self.0 = bytes
            .iter()
            .fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::candidates;
    use super::*;
    use proptest::prelude::*;

    fn turns(state: &mut RoundRobin, servers: &[Candidate<'_>], count: usize) -> Vec<usize> {
        (0..count).map(|_| state.choose(servers).unwrap()).collect()
    }

    #[test]
    fn turns_are_smooth() {
        let servers = candidates(&[(5, 0), (1, 0), (1, 0)]);
        let mut state = RoundRobin::default();
        assert_eq!(
            turns(&mut state, &servers, 14),
            [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]
        );
        assert_eq!(state.choose(&[]), None);
    }

    #[test]
    fn neither_places_nor_comings_and_goings_disturb_the_rest() {
        let servers = candidates(&[(1, 0), (1, 0), (1, 0), (1, 0)]);
        let without_1 = [servers[0], servers[2], servers[3]];
        let mut state = RoundRobin::default();
        assert_eq!(turns(&mut state, &servers, 2), [0, 1]);
        assert_eq!(
            turns(&mut state, &without_1, 2),
            [2, 3],
            "the turn goes on where it was"
        );
        let mut state = RoundRobin::default();
        assert_eq!(turns(&mut state, &servers, 2), [0, 1]);
        let elsewhere = [servers[3], servers[1], servers[0], servers[2]];
        assert_eq!(
            turns(&mut state, &elsewhere, 2),
            [3, 2],
            "credits follow servers, not places"
        );
    }

    #[test]
    fn the_forgotten_leave_nothing_behind() {
        let mut state = RoundRobin::default();
        let servers = candidates(&[(3, 0), (2, 0), (1, 0), (7, 0)]);
        let stay = &servers[..2];
        for round in 0..1000 {
            turns(&mut state, &servers, 1 + round % 3);
            state.keep_only(stay.iter().map(|server| server.key));
            assert_eq!(state.credits.len(), 2);
            assert!(state.credits.values().sum::<i64>().abs() < 2, "{:?}", state.credits);
        }
        let ones = turns(&mut state, stay, 500)
            .into_iter()
            .filter(|index| *index == 1)
            .count();
        assert!(ones.abs_diff(200) <= 13, "fair again within a cycle: {ones}");
        state.keep_only([].into_iter());
        assert!(state.credits.is_empty());
    }

    proptest! {
        #[test]
        fn a_cycle_is_exact_and_ends_where_it_began(weights in prop::collection::vec(1u16..=256, 1..20)) {
            let servers = candidates(&weights.iter().map(|weight| (*weight, 0)).collect::<Vec<_>>());
            let cycle = weights.iter().map(|weight| usize::from(*weight)).sum();
            let mut state = RoundRobin::default();
            let mut counts = vec![0; weights.len()];
            for index in turns(&mut state, &servers, cycle) {
                counts[index] += 1;
            }
            prop_assert_eq!(counts, weights);
            prop_assert!(state.credits.values().all(|credit| *credit == 0));
        }
    }
}
