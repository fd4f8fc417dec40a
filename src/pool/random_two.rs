//! `random-two`: the less loaded of two servers drawn at random.
//!
//! It is nearly as even as comparing all servers (Mitzenmacher, "The Power of Two Choices in Randomized Load
//! Balancing", IEEE TPDS 12(10), 2001), but reads only two, however many there are. Independent balancers do not all
//! send their sessions to the same idle server, as they may if each compares all servers.

use super::candidates::Candidate;
use super::least_conn::is_less_loaded;

/// Draws two distinct candidates, compares them as in `least-conn`, and returns the less loaded one, or the first drawn
/// if they are equal. If there is only one candidate, returns it; `None`: there is none.
///
/// `draw` gets a bound, at least 1, and returns a uniformly distributed number below it.
pub(super) fn choose(candidates: &[Candidate], mut draw: impl FnMut(usize) -> usize) -> Option<&Candidate> {
    if candidates.len() < 2 {
        return candidates.first();
    }
    let first = draw(candidates.len());
    // Drawn among the others: indices from `first` on are shifted by one.
    let other = draw(candidates.len() - 1);
    let (first, second) = (&candidates[first], &candidates[other + usize::from(other >= first)]);
    Some(if is_less_loaded(second, first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::super::tests::candidates;
    use super::*;
    use std::collections::BTreeMap;

    /// The chosen index for each pair of draws.
    fn choices_by_draw(servers: &[Candidate]) -> BTreeMap<(usize, usize), usize> {
        let mut chosen = BTreeMap::new();
        for first in 0..servers.len() {
            for second in 0..servers.len() - 1 {
                let mut draws = [first, second].into_iter();
                let winner = choose(servers, |bound| draws.next().filter(|draw| *draw < bound).unwrap()).unwrap();
                chosen.insert((first, second), winner.index);
            }
        }
        chosen
    }

    #[test]
    fn two_distinct_servers_are_drawn_and_each_pair_is_equally_likely() {
        // Loads 0, 1, 2, 3: the lower index of a pair always wins. Of the six pairs, it is 0 in three, 1 in two and 2
        // in one; each pair is drawn in both orders.
        let servers = candidates(&[(1, 0), (1, 1), (1, 2), (1, 3)]);
        let mut wins = [0; 4];
        for winner in choices_by_draw(&servers).into_values() {
            wins[winner] += 1;
        }
        assert_eq!(wins, [6, 4, 2, 0], "of 12 ordered pairs; the most loaded never wins");
    }

    #[test]
    fn weights_count_and_the_first_drawn_wins_a_tie() {
        let servers = candidates(&[(1, 0), (1, 0), (1, 0)]);
        assert!(
            choices_by_draw(&servers)
                .into_iter()
                .all(|((first, _), winner)| winner == first)
        );
        let weighted = candidates(&[(4, 6), (1, 1)]);
        assert!(
            choices_by_draw(&weighted).into_values().all(|winner| winner == 0),
            "with the new session: 7/4 against 2/1 sessions per weight"
        );
    }

    #[test]
    fn nothing_is_drawn_with_fewer_than_two_candidates() {
        let no_draw = |_| panic!("no draw is needed");
        assert!(choose(&[], no_draw).is_none());
        assert_eq!(choose(&candidates(&[(1, 5)]), no_draw).unwrap().index, 0);
    }

    #[test]
    fn a_burst_of_sessions_is_spread_evenly() {
        let mut random = fastrand::Rng::with_seed(7);
        let servers = candidates(&[(1, 0); 10]);
        for _ in 0..10_000 {
            choose(&servers, |bound| random.usize(..bound))
                .unwrap()
                .server
                .add_session();
        }
        assert!(
            servers.iter().all(|server| server.live().abs_diff(1000) < 20),
            "{servers:?}"
        );
    }
}
