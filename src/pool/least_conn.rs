//! `least-conn`: the lowest (live sessions + 1) / weight.
//!
//! The 1 is the session being placed: an idle server of weight 3 gets two sessions before its load equals that of an
//! idle server of weight 1.

use super::candidates::Candidate;

/// The load of a candidate when it was read.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// The live sessions, and the one being placed.
    sessions: u64,
    weight: u64,
}

impl Load {
    fn new(candidate: &Candidate) -> Self {
        Self {
            sessions: u64::from(candidate.live()) + 1,
            weight: u64::from(candidate.weight),
        }
    }

    /// Exact: compares the fractions by cross-multiplication, which needs at most 48 bits.
    fn is_below(self, other: Self) -> bool {
        self.sessions * other.weight < other.sessions * self.weight
    }

    fn equals(self, other: Self) -> bool {
        self.sessions * other.weight == other.sessions * self.weight
    }
}

/// The most blocks into which a scan divides the candidates. At the end of each block, the scan notes how many
/// candidates it has found with the lowest load, so that the chosen one is found by scanning one block again.
const BLOCKS: usize = 16;

/// The least number of candidates in a block: smaller blocks save nothing.
const BLOCK_MIN: usize = 16;

/// The least loaded candidate; `None` if there is none.
///
/// If several have the lowest load, `turn` is called once. It gets their number, at least 2, and returns the index of
/// the one to take. Scanning from a moving start instead would favour equals that follow loaded servers. `turn` is not
/// called without a choice, so that retries, which often have none, do not use up turns.
pub(super) fn choose(candidates: &[Candidate], turn: impl FnOnce(usize) -> usize) -> Option<&Candidate> {
    let mut lowest = candidates.first()?;
    let mut load = Load::new(lowest);
    // The number of candidates so far whose load equals the lowest, the block of the first of them, and their number at
    // the end of each block.
    let mut equals = 0;
    let mut first_block = 0;
    let mut equals_until = [0; BLOCKS];
    let blocks = || candidates.chunks(candidates.len().div_ceil(BLOCKS).max(BLOCK_MIN));
    for (block, in_block) in blocks().enumerate() {
        for candidate in in_block {
            let other = Load::new(candidate);
            if load.is_below(other) {
                continue;
            }
            if other.is_below(load) {
                (lowest, load) = (candidate, other);
                (equals, first_block) = (0, block);
            }
            equals += 1;
        }
        equals_until[block] = equals;
    }
    if equals < 2 {
        return Some(lowest);
    }
    let chosen = turn(equals);
    let mut before = 0;
    for (in_block, until) in blocks().zip(equals_until).skip(first_block) {
        if chosen < until {
            let mut equal = in_block.iter().filter(|candidate| Load::new(candidate).equals(load));
            // Loads may have changed since the scan: if too few equals are left, take the first that was found.
            return equal.nth(chosen - before).or(Some(lowest));
        }
        before = until;
    }
    Some(lowest)
}

/// Whether `a` is less loaded than `b`.
pub(super) fn is_less_loaded(a: &Candidate, b: &Candidate) -> bool {
    Load::new(a).is_below(Load::new(b))
}

#[cfg(test)]
mod tests {
    use super::super::tests::candidates;
    use super::*;
    use proptest::prelude::*;

    fn chosen(candidates: &[Candidate], turn: impl FnOnce(usize) -> usize) -> Option<usize> {
        choose(candidates, turn).map(|candidate| candidate.index)
    }

    fn never(_: usize) -> usize {
        panic!("called without a choice")
    }

    #[test]
    fn the_lowest_weighted_load_is_chosen() {
        // Each candidate is given by its weight and its live sessions.
        assert_eq!(chosen(&[], never), None);
        assert_eq!(chosen(&candidates(&[(1, 9)]), never), Some(0));
        assert_eq!(
            chosen(&candidates(&[(1, 1), (3, 4)]), never),
            Some(1),
            "2/1 against 5/3"
        );
        assert_eq!(
            chosen(&candidates(&[(1, 0), (3, 3)]), never),
            Some(0),
            "1/1 against 4/3"
        );
    }

    #[test]
    fn loads_are_compared_exactly_and_without_overflow() {
        let full = candidates(&[(256, u32::MAX), (255, u32::MAX), (256, u32::MAX - 1)]);
        assert_eq!(chosen(&full, never), Some(2));
    }

    #[test]
    fn equally_loaded_servers_take_turns_wherever_they_are_listed() {
        // Servers 1 and 5 are equally low. Of six turns, a moving start would give four to server 5.
        let uneven = candidates(&[(1, 7), (1, 2), (1, 7), (1, 7), (1, 7), (2, 5)]);
        let order: Vec<_> = (0..6)
            .map(|turn| chosen(&uneven, |equals| turn % equals).unwrap())
            .collect();
        assert_eq!(order, [1, 5, 1, 5, 1, 5]);
    }

    #[test]
    fn equals_of_several_blocks_are_chosen_by_their_turn() {
        let mut loads = vec![(2, 1); 100];
        loads[5] = (3, 1); // the lowest so far, in the first block
        let lowest = [20, 21, 37, 50, 99];
        lowest.iter().for_each(|index| loads[*index] = (2, 0));
        for (turn, index) in lowest.into_iter().enumerate() {
            let choice = |equals| {
                assert_eq!(equals, lowest.len());
                turn
            };
            assert_eq!(chosen(&candidates(&loads), choice), Some(index));
        }
    }

    #[test]
    fn idle_servers_fill_up_in_proportion_to_their_weights() {
        let servers = candidates(&[(1, 0), (2, 0), (5, 0)]);
        for turn in 0..800 {
            choose(&servers, |equals| turn % equals).unwrap().server.add_session();
        }
        assert_eq!(servers.iter().map(Candidate::live).collect::<Vec<_>>(), [100, 200, 500]);
    }

    proptest! {
        #[test]
        fn no_server_has_a_lower_weighted_load_than_the_chosen_one(
            servers in prop::collection::vec((1u16..=256, 0u32..50), 1..40),
            turn: usize,
        ) {
            let servers = candidates(&servers);
            let chosen = choose(&servers, |equals| turn % equals).unwrap();
            let load = |server: &Candidate| (f64::from(server.live()) + 1.0) / f64::from(server.weight);
            for other in &servers {
                prop_assert!(load(chosen) <= load(other) + 1e-9);
            }
        }
    }
}
