//! `round-robin`: weighted turns, evenly spread.
//!
//! The turns of one cycle are computed in advance as a list shared by all workers, and a counter advances over it: a
//! pick is one atomic addition. In a cycle each server has as many turns as its weight divided by the greatest common
//! divisor of all weights. The turns of servers of equal weight are evenly spaced in the cycle; the servers take them
//! in the order in which they are listed: weights 5, 1, 1 give `a b a a a c a`.
//!
//! Each server has its exact share in cycles of up to [`TURNS_MAX`] turns. If a pool needs more, its cycle is shortened
//! to about [`TURNS_MAX`]. For example, 1,000 servers need more if their weights, divided by their greatest common
//! divisor, are 33 or more on average; during slow start, when weights are in hundredths, a few servers may. In a
//! shortened cycle, the turns of a server differ from its exact share by at most half a turn, but a server whose share
//! is below one turn has one turn.

use std::collections::BTreeMap;

use super::ServerId;
use super::candidates::Candidate;
use super::turn_counter::TurnCounter;

/// The most turns of a cycle; rounding may add one turn for each server. It bounds memory (8 bytes a turn) and the time
/// of a rebuild: 0.76 ms measured for the longest cycle of 1,000 servers, 0.054 ms for a cycle of 2,000 turns, each
/// with a change and a pick (`benches/pick.rs`, "after a change"; `benches/RESULTS.md`).
const TURNS_MAX: u64 = 32_768;

/// One turn of a cycle. Turns are ordered by time, and at the same time by position: the order of these fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// Its time in the cycle, which lasts from 0 to 2^32.
    at: u32,
    /// The position of its server among the candidates.
    position: u32,
}

/// The turns of a set of candidates.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    /// The turns of one cycle, in order.
    turns: Vec<Turn>,
    /// Counts turns over all cycles.
    counter: TurnCounter,
}

impl RoundRobin {
    /// The turns of these candidates. The first one taken has the number `first`, counted from 0 over all cycles.
    pub(super) fn new(candidates: &[Candidate], first: usize) -> Self {
        let mut positions_by_turns: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (position, turns_each) in (0..).zip(turns_per_cycle(candidates)) {
            positions_by_turns.entry(turns_each).or_default().push(position);
        }
        let mut turns = Vec::new();
        for (turns_each, positions) in positions_by_turns {
            let count = turns_each * positions.len() as u64; // at most TURNS_MAX + the number of servers
            let owners = positions.iter().cycle();
            turns.extend((0..count).zip(owners).map(|(nth, position)| Turn {
                at: (((2 * nth + 1) << 31) / count) as u32, // the middle of the nth of `count` equal parts
                position: *position,
            }));
        }
        turns.sort_unstable();
        Self {
            turns,
            counter: TurnCounter::starting_at(first),
        }
    }

    /// The turns of these candidates, continued after the latest turn of a previous set. If the server of that turn is
    /// still a candidate, that of its new turns which is nearest in time counts as taken: the next turn is the one
    /// after it. If not, the next turn is the first after the time of the latest turn.
    pub(super) fn resume(candidates: &[Candidate], previous: &Self, previous_candidates: &[Candidate]) -> Self {
        let mut next = Self::new(candidates, 0);
        if let Some(latest) = previous.latest() {
            let id = previous_candidates[latest.position as usize].server.id();
            // Counting starts in the second cycle: `Self::latest` then finds a turn even if the next turn is the first
            // of the cycle.
            next.counter = TurnCounter::starting_at(next.turns.len() + next.turns_until(latest, id, candidates));
        }
        next
    }

    /// The number of turns in this cycle up to and including the one that corresponds to `latest`, a turn of the server
    /// `id` in the cycle of the previous set.
    fn turns_until(&self, latest: Turn, id: ServerId, candidates: &[Candidate]) -> usize {
        let is_same = |turn: &Turn| candidates[turn.position as usize].server.id() == id;
        let own = (0..).zip(&self.turns).filter(|(_, turn)| is_same(turn));
        let nearest = own.min_by_key(|(_, turn)| turn.at.abs_diff(latest.at));
        nearest.map_or_else(
            || self.turns.partition_point(|turn| turn.at <= latest.at),
            |(nth, _): (usize, _)| nth + 1,
        )
    }

    /// The turn that was taken last.
    fn latest(&self) -> Option<Turn> {
        let taken = self.counter.upcoming().checked_sub(1)?;
        self.turns.get(taken.checked_rem(self.turns.len())?).copied()
    }

    /// Takes the next turn. Returns the position of its candidate; `None`: no candidates.
    pub(super) fn next(&self) -> Option<usize> {
        let turn = self.counter.take().checked_rem(self.turns.len())?;
        Some(self.turns[turn].position as usize)
    }
}

/// The number of turns of each candidate in a cycle: the smallest integers proportional to the weights, or nearly
/// proportional if the cycle would be too long.
fn turns_per_cycle(candidates: &[Candidate]) -> Vec<u64> {
    let exact = reduced(candidates.iter().map(|candidate| u64::from(candidate.weight)).collect());
    let sum: u64 = exact.iter().sum();
    if sum <= TURNS_MAX {
        return exact;
    }
    let rounded = |weight: u64| ((weight * TURNS_MAX + sum / 2) / sum).max(1);
    reduced(exact.into_iter().map(rounded).collect())
}

/// The weights divided by their greatest common divisor.
fn reduced(weights: Vec<u64>) -> Vec<u64> {
    let divisor = weights
        .iter()
        .fold(0, |divisor, weight| greatest_common_divisor(divisor, *weight));
    weights.into_iter().map(|weight| weight / divisor.max(1)).collect()
}

const fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::super::tests::candidates;
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    fn weighted(weights: &[u16]) -> Vec<Candidate> {
        candidates(&weights.iter().map(|weight| (*weight, 0)).collect::<Vec<_>>())
    }

    fn take(round_robin: &RoundRobin, count: usize) -> Vec<usize> {
        (0..count).map(|_| round_robin.next().unwrap()).collect()
    }

    /// The indices of the candidates of the next `count` turns.
    fn indices(round_robin: &RoundRobin, candidates: &[Candidate], count: usize) -> Vec<usize> {
        let positions = take(round_robin, count);
        positions
            .into_iter()
            .map(|position| candidates[position].index)
            .collect()
    }

    /// How often each candidate was picked.
    fn counts(positions: &[usize], candidate_count: usize) -> Vec<usize> {
        let mut counts = vec![0; candidate_count];
        positions.iter().for_each(|position| counts[*position] += 1);
        counts
    }

    #[test]
    fn servers_of_equal_weight_take_turns_in_the_order_listed() {
        let round_robin = RoundRobin::new(&weighted(&[7, 7, 7]), 0);
        assert_eq!(take(&round_robin, 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(RoundRobin::default().next(), None);
    }

    #[test]
    fn the_turns_of_a_heavy_server_are_spread_over_the_cycle() {
        let round_robin = RoundRobin::new(&weighted(&[5, 1, 1]), 0);
        let cycle = [0, 1, 0, 0, 0, 2, 0];
        assert_eq!(take(&round_robin, 14), [cycle, cycle].concat());
    }

    #[test]
    fn turns_go_on_after_the_latest_one_when_a_server_leaves_or_returns() {
        let servers = weighted(&[1, 1, 1, 1]);
        let first = RoundRobin::new(&servers, 0);
        assert_eq!(take(&first, 2), [0, 1]);
        for (gone, expected) in [(0, [2, 3, 1]), (1, [2, 3, 0]), (3, [2, 0, 1])] {
            let remaining: Vec<_> = servers.iter().filter(|server| server.index != gone).cloned().collect();
            let second = RoundRobin::resume(&remaining, &first, &servers);
            assert_eq!(indices(&second, &remaining, 3), expected, "without {gone}");
            let third = RoundRobin::resume(&servers, &second, &remaining);
            let latest = expected[2];
            assert_eq!(indices(&third, &servers, 1), [latest + 1], "{gone} is back");
        }
    }

    #[test]
    fn a_rebuild_without_changes_keeps_the_order() {
        let servers = weighted(&[3, 1, 2, 2]);
        let expected = take(&RoundRobin::new(&servers, 0), 40);
        let mut round_robin = RoundRobin::new(&servers, 0);
        let rebuilt = expected.iter().map(|_| {
            round_robin = RoundRobin::resume(&servers, &round_robin, &servers);
            round_robin = RoundRobin::resume(&servers, &round_robin, &servers);
            round_robin.next().unwrap()
        });
        assert_eq!(rebuilt.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_turn_is_lost_or_taken_twice_by_concurrent_threads() {
        let round_robin = RoundRobin::new(&weighted(&[5, 2, 1]), 0);
        let taken = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| take(&round_robin, 8_000)));
            threads.map(|thread| thread.join().unwrap()).concat()
        });
        assert_eq!(counts(&taken, 3), [20_000, 8_000, 4_000]);
    }

    #[test]
    fn a_long_cycle_is_shortened_and_shares_change_by_at_most_half_a_turn() {
        let weights: Vec<u16> = (0..1000u32).map(|n| 1 + (n * 7919 % 256) as u16).collect();
        let round_robin = RoundRobin::new(&weighted(&weights), 0);
        let cycle = round_robin.turns.len();
        assert!(cycle <= TURNS_MAX as usize + weights.len(), "{cycle}");
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (weight, count) in weights.iter().zip(counts(&take(&round_robin, cycle), weights.len())) {
            let share = f64::from(*weight) * TURNS_MAX as f64 / sum;
            let due = share.max(1.0); // every server has a turn
            assert!((count as f64 - due).abs() <= 0.5 + 1e-9, "{weight}: {count}, not {due}");
        }
    }

    proptest! {
        #[test]
        fn shares_are_exact_over_a_cycle_and_nearly_exact_at_each_turn(weights in prop::collection::vec(1u16..=256, 1..20)) {
            let servers = weighted(&weights);
            let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let taken = take(&RoundRobin::new(&servers, 0), sum);
            prop_assert_eq!(counts(&taken, weights.len()), weights.iter().map(|w| usize::from(*w)).collect::<Vec<_>>());
            // After each turn, the turns that a server has had differ from its share by less than 2 turns plus half a
            // turn for each server of the pool.
            let mut had = vec![0usize; weights.len()];
            for (turns, position) in (1..).zip(&taken) {
                had[*position] += 1;
                for (had, weight) in had.iter().zip(&weights) {
                    let due = turns as f64 * f64::from(*weight) / sum as f64;
                    prop_assert!((*had as f64 - due).abs() < 2.0 + weights.len() as f64 / 2.0, "{had} of {due}");
                }
            }
        }
    }
}
