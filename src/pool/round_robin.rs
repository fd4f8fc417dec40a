//! `round-robin`: by turns, weighted and smooth.
//!
//! The turns of one cycle are laid out in advance, one list for all workers, and a counter walks over it: a pick is one
//! atomic addition. In a cycle each server has as many turns as its weight, after division by the greatest common
//! divisor, and they are evenly spaced. Servers of equal weight share one such grid and take its points in the order
//! in which they are listed: weights 5, 1, 1 give `a b a a a c a`.
//!
//! The shares are exact up to [`TURNS_MAX`] turns a cycle. A pool that needs more (1,000 servers of an average weight over
//! 32, or as many in a slow start) gets that many: a share then differs by at most half a turn of the cycle, and every
//! server has at least one.

use std::collections::BTreeMap;

use super::ServerId;
use super::candidates::Candidate;
use super::turn_counter::TurnCounter;

/// The longest cycle, unless there are more servers than that. It bounds memory (8 bytes a turn) and the time in which
/// the list is made (under a millisecond).
const TURNS_MAX: u64 = 32_768;

/// One turn of a cycle. The order of turns is the order of these fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// When: from 0, where the cycle begins, to 2^32, where it ends.
    at: u32,
    /// Whose: a position among the candidates.
    position: u32,
}

/// Whose turn it is among a set of candidates.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    /// Of one cycle, in order.
    turns: Vec<Turn>,
    /// Counts on over all cycles.
    counter: TurnCounter,
}

impl RoundRobin {
    /// The turns of these candidates, from turn `first` of their cycle on.
    pub(super) fn new(candidates: &[Candidate], first: usize) -> Self {
        let mut of_weight: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (position, weight) in (0..).zip(turns_per_cycle(candidates)) {
            of_weight.entry(weight).or_default().push(position);
        }
        let mut turns = Vec::new();
        for (weight, positions) in of_weight {
            let count = weight * positions.len() as u64; // at most TURNS_MAX, or the number of servers
            let owners = positions.iter().cycle();
            turns.extend((0..count).zip(owners).map(|(nth, position)| Turn {
                at: (((2 * nth + 1) << 31) / count) as u32, // in the middle of the nth of `count` equal parts
                position: *position,
            }));
        }
        turns.sort_unstable();
        Self {
            turns,
            counter: TurnCounter::starting_at(first),
        }
    }

    /// The turns of these candidates from where a previous set has stopped: after the server that had the latest turn, or,
    /// where that is no longer a candidate, after the point of the cycle at which it had it.
    pub(super) fn resume(candidates: &[Candidate], previous: &Self, previous_candidates: &[Candidate]) -> Self {
        let mut next = Self::new(candidates, 0);
        if let Some(latest) = previous.latest() {
            let id = previous_candidates[latest.position as usize].server.id();
            // Counted from the second cycle: at its beginning, too, there is a latest turn.
            next.counter = TurnCounter::starting_at(next.turns.len() + next.turns_until(latest, id, candidates));
        }
        next
    }

    /// How many turns of the cycle are over once this server has had that turn of another cycle.
    fn turns_until(&self, latest: Turn, id: ServerId, candidates: &[Candidate]) -> usize {
        let is_same = |turn: &Turn| candidates[turn.position as usize].server.id() == id;
        let own = (0..).zip(&self.turns).filter(|(_, turn)| is_same(turn));
        let nearest = own.min_by_key(|(_, turn)| turn.at.abs_diff(latest.at));
        nearest.map_or_else(
            || self.turns.partition_point(|turn| turn.at <= latest.at),
            |(nth, _): (usize, _)| nth + 1,
        )
    }

    fn latest(&self) -> Option<Turn> {
        let latest = self.counter.upcoming().checked_sub(1)?;
        self.turns.get(latest.checked_rem(self.turns.len())?).copied()
    }

    /// The position of the candidate whose turn it is; `None` without candidates.
    pub(super) fn next(&self) -> Option<usize> {
        let turn = self.counter.take().checked_rem(self.turns.len())?;
        Some(self.turns[turn].position as usize)
    }
}

/// How many turns each candidate has in a cycle: its weight, in the least whole numbers of the same proportions, or in
/// nearly the same if the cycle would be too long.
fn turns_per_cycle(candidates: &[Candidate]) -> Vec<u64> {
    let exact = reduced(candidates.iter().map(|candidate| u64::from(candidate.weight)).collect());
    let sum: u64 = exact.iter().sum();
    if sum <= TURNS_MAX {
        return exact;
    }
    let rounded = |weight: u64| ((weight * TURNS_MAX + sum / 2) / sum).max(1);
    reduced(exact.into_iter().map(rounded).collect())
}

/// Divided by their greatest common divisor.
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

    fn of(weights: &[u16]) -> Vec<Candidate> {
        candidates(&weights.iter().map(|weight| (*weight, 0)).collect::<Vec<_>>())
    }

    fn take(round_robin: &RoundRobin, count: usize) -> Vec<usize> {
        (0..count).map(|_| round_robin.next().unwrap()).collect()
    }

    /// The indices of the candidates that have the next turns.
    fn indices(round_robin: &RoundRobin, candidates: &[Candidate], count: usize) -> Vec<usize> {
        let positions = take(round_robin, count);
        positions
            .into_iter()
            .map(|position| candidates[position].index)
            .collect()
    }

    fn counts(positions: &[usize], candidates: usize) -> Vec<usize> {
        let mut counts = vec![0; candidates];
        positions.iter().for_each(|position| counts[*position] += 1);
        counts
    }

    #[test]
    fn servers_of_equal_weight_take_turns_as_listed() {
        let round_robin = RoundRobin::new(&of(&[7, 7, 7]), 0);
        assert_eq!(take(&round_robin, 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(RoundRobin::default().next(), None);
    }

    #[test]
    fn the_turns_of_a_heavy_server_are_spread_out() {
        let round_robin = RoundRobin::new(&of(&[5, 1, 1]), 0);
        let cycle = [0, 1, 0, 0, 0, 2, 0];
        assert_eq!(take(&round_robin, 14), [cycle, cycle].concat());
    }

    #[test]
    fn a_server_that_leaves_or_joins_does_not_change_whose_turn_is_next() {
        let servers = of(&[1, 1, 1, 1]);
        let first = RoundRobin::new(&servers, 0);
        assert_eq!(take(&first, 2), [0, 1]);
        for gone in [0, 1, 3] {
            let left: Vec<_> = servers.iter().filter(|server| server.index != gone).cloned().collect();
            let second = RoundRobin::resume(&left, &first, &servers);
            let expected = if gone == 3 { [2, 0, 1] } else { [2, 3, 1 - gone.min(1)] };
            assert_eq!(indices(&second, &left, 3), expected, "without {gone}");
            let third = RoundRobin::resume(&servers, &second, &left);
            let latest = expected[2];
            assert_eq!(indices(&third, &servers, 1), [latest + 1], "{gone} is back");
        }
    }

    #[test]
    fn rebuilding_alone_changes_nothing() {
        let servers = of(&[3, 1, 2, 2]);
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
    fn no_turn_is_lost_or_taken_twice_between_threads() {
        let round_robin = RoundRobin::new(&of(&[5, 2, 1]), 0);
        let taken = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| take(&round_robin, 8_000)));
            threads.map(|thread| thread.join().unwrap()).concat()
        });
        assert_eq!(counts(&taken, 3), [20_000, 8_000, 4_000]);
    }

    #[test]
    fn a_cycle_too_long_is_shortened_and_keeps_the_shares_nearly() {
        let weights: Vec<u16> = (0..1000u32).map(|n| 1 + (n * 7919 % 256) as u16).collect();
        let round_robin = RoundRobin::new(&of(&weights), 0);
        let cycle = round_robin.turns.len();
        assert!(cycle <= TURNS_MAX as usize + weights.len(), "{cycle}");
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (weight, count) in weights.iter().zip(counts(&take(&round_robin, cycle), weights.len())) {
            let due = f64::from(*weight) * TURNS_MAX as f64 / sum;
            assert!(
                count >= 1 && (count as f64 - due.max(1.0)).abs() <= 0.5 + 1e-9,
                "{weight}: {count}, not {due}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_cycle_is_exact_and_smooth(weights in prop::collection::vec(1u16..=256, 1..20)) {
            let servers = of(&weights);
            let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let taken = take(&RoundRobin::new(&servers, 0), sum);
            prop_assert_eq!(counts(&taken, weights.len()), weights.iter().map(|w| usize::from(*w)).collect::<Vec<_>>());
            // At each moment a server has had its share so far, give or take a turn for each group of equal weight.
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
