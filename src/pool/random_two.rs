//! `random-two`: of two servers drawn at random the less loaded.
//!
//! Nearly as even as asking all of them (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE
//! TPDS 12(10), 2001), at the price of looking at two; and balancers that do not know of each other do not all run to
//! the same idle server.

use super::{Candidate, least_conn};

/// The index of the less loaded of two distinct servers, by the rule of `least-conn`; the first drawn if they are
/// equal, the only one if there are no two, `None` without candidates.
///
/// `draw` is given a bound, at least 1, and answers with a number below it, all of them equally likely.
#[must_use]
pub fn choose(candidates: &[Candidate<'_>], mut draw: impl FnMut(usize) -> usize) -> Option<usize> {
    let (first, second) = match candidates.len() {
        0 => return None,
        1 => (0, 0),
        several => {
            let first = draw(several);
            // Drawn among the others: those from `first` on are one place further.
            let other = draw(several - 1);
            (first, other + usize::from(other >= first))
        }
    };
    let (first, second) = (&candidates[first], &candidates[second]);
    let chosen = if least_conn::compare(second, first).is_lt() {
        second
    } else {
        first
    };
    Some(chosen.index)
}

#[cfg(test)]
mod tests {
    use super::super::tests::candidates;
    use super::*;
    use std::collections::BTreeMap;

    /// What comes of each pair of draws.
    fn of_every_draw(servers: &[Candidate<'_>]) -> BTreeMap<(usize, usize), usize> {
        let mut chosen = BTreeMap::new();
        for first in 0..servers.len() {
            for second in 0..servers.len() - 1 {
                let mut draws = [first, second].into_iter();
                chosen.insert(
                    (first, second),
                    choose(servers, |bound| draws.next().filter(|draw| *draw < bound).unwrap()).unwrap(),
                );
            }
        }
        chosen
    }

    #[test]
    fn the_two_are_distinct_and_each_pair_is_equally_likely() {
        // Loads 0, 1, 2, 3: the lower index of the pair always wins, so it tells which pair was drawn.
        let servers = candidates(&[(1, 0), (1, 1), (1, 2), (1, 3)]);
        let mut wins = [0; 4];
        for winner in of_every_draw(&servers).into_values() {
            wins[winner] += 1;
        }
        assert_eq!(wins, [6, 4, 2, 0], "of 12 ordered pairs; never the most loaded one");
    }

    #[test]
    fn the_first_drawn_wins_ties_and_weights_count() {
        let servers = candidates(&[(1, 0), (1, 0), (1, 0)]);
        assert!(
            of_every_draw(&servers)
                .into_iter()
                .all(|((first, _), winner)| winner == first)
        );
        let weighted = candidates(&[(4, 6), (1, 1)]);
        assert!(
            of_every_draw(&weighted).into_values().all(|winner| winner == 0),
            "7/4 against 2/1"
        );
    }

    #[test]
    fn few_candidates() {
        let no_draw = |_| panic!("nothing to draw from");
        assert_eq!(choose(&[], no_draw), None);
        assert_eq!(choose(&candidates(&[(1, 5)]), no_draw), Some(0));
    }

    #[test]
    fn a_burst_spreads_evenly() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut servers = candidates(&[(1, 0); 10]);
        for _ in 0..10_000 {
            let index = choose(&servers, |bound| random.usize(..bound)).unwrap();
            servers[index].live += 1;
        }
        assert!(
            servers.iter().all(|server| server.live.abs_diff(1000) < 20),
            "{servers:?}"
        );
    }
}
