//! `least-conn`: the lowest (live sessions + 1) / weight.
//!
//! The one more is the session that is being placed: an idle server of weight 3 takes three before an idle one of
//! weight 1 is as full.

use std::cmp::Ordering;

use super::Candidate;

/// The index of the least loaded server; `None` without candidates.
///
/// When several are equally low, `turn` is asked once which of them it is: it is given their number, at least two,
/// and answers with one below it. Turning among the equals, and not from a moving start to the next equal, gives none
/// of them more because its neighbours are loaded; asking only when there is a choice keeps the turns even although
/// retries, which often have none, come in between.
#[must_use]
pub fn choose(candidates: &[Candidate<'_>], turn: impl FnOnce(usize) -> usize) -> Option<usize> {
    let lowest = candidates.iter().min_by(|a, b| compare(a, b))?;
    let mut equals = candidates.iter().filter(|candidate| compare(candidate, lowest).is_eq());
    match equals.clone().count() {
        1 => Some(lowest.index),
        several => equals.nth(turn(several)).map(|candidate| candidate.index),
    }
}

/// Which of two is less loaded, exactly: the fractions are compared by multiplying crosswise, which 48 bits hold.
pub(super) fn compare(a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
    let with = |candidate: &Candidate<'_>| u64::from(candidate.live) + 1;
    (with(a) * u64::from(b.weight)).cmp(&(with(b) * u64::from(a.weight)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::candidates;
    use super::*;
    use proptest::prelude::*;

    fn never(_: usize) -> usize {
        panic!("there is nothing to take turns about")
    }

    #[test]
    fn the_lowest_weighted_load_wins() {
        assert_eq!(choose(&[], never), None);
        assert_eq!(choose(&candidates(&[(1, 9)]), never), Some(0));
        assert_eq!(
            choose(&candidates(&[(1, 1), (3, 4)]), never),
            Some(1),
            "2/1 against 5/3"
        );
        assert_eq!(
            choose(&candidates(&[(1, 0), (3, 3)]), never),
            Some(0),
            "1/1 against 4/3"
        );
    }

    #[test]
    fn nothing_overflows_and_nothing_is_rounded() {
        let full = candidates(&[(256, u32::MAX), (255, u32::MAX), (256, u32::MAX - 1)]);
        assert_eq!(choose(&full, never), Some(2));
    }

    #[test]
    fn equals_take_turns_whatever_stands_between_them() {
        // Servers 1 and 5 are equally low. A moving start would give 5 four turns of six, and 1 two.
        let uneven = candidates(&[(1, 7), (1, 2), (1, 7), (1, 7), (1, 7), (2, 5)]);
        let chosen: Vec<_> = (0..6)
            .map(|turn| choose(&uneven, |equals| turn % equals).unwrap())
            .collect();
        assert_eq!(chosen, [1, 5, 1, 5, 1, 5]);
    }

    #[test]
    fn idle_servers_fill_up_in_proportion_to_their_weights() {
        let mut servers = candidates(&[(1, 0), (2, 0), (5, 0)]);
        for turn in 0..800 {
            let index = choose(&servers, |equals| turn % equals).unwrap();
            servers[index].live += 1;
        }
        assert_eq!(
            servers.iter().map(|server| server.live).collect::<Vec<_>>(),
            [100, 200, 500]
        );
    }

    proptest! {
        #[test]
        fn no_server_with_a_lower_weighted_load_is_passed_over(
            servers in prop::collection::vec((1u16..=256, 0u32..50), 1..40),
            turn: usize,
        ) {
            let servers = candidates(&servers);
            let chosen = &servers[choose(&servers, |equals| turn % equals).unwrap()];
            let load = |server: &Candidate<'_>| (f64::from(server.live) + 1.0) / f64::from(server.weight);
            for other in &servers {
                prop_assert!(load(chosen) <= load(other) + 1e-9);
            }
        }
    }
}
