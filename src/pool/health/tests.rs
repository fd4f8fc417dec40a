use super::*;

const TWO_THREE: Thresholds = Thresholds { rise: 2, fall: 3 };

/// The outcome of a check, by its sign in these tests.
fn outcome(sign: char) -> CheckOutcome {
    match sign {
        '+' => CheckOutcome::Pass,
        '-' => CheckOutcome::Fail("gone".into()),
        '<' => CheckOutcome::Behind("7s".into()),
        '!' | '|' => CheckOutcome::Refused {
            reason: "too many clients".into(),
            accepts_sessions: sign == '!',
        },
        'h' | 'H' => CheckOutcome::Prevented {
            reason: "no password".into(),
            accepts_sessions: sign == 'h',
        },
        'x' => CheckOutcome::Down("the agent says: down".into()),
        '?' => CheckOutcome::Unfit("a replica".into()),
        _ => unreachable!("no outcome has the sign {sign}"),
    }
}

/// Records a result for each sign. Returns for each the new state, or `None` if the state is the same as before.
fn run(machine: &mut RiseFall, results: &str) -> Vec<Option<CheckState>> {
    results
        .chars()
        .map(|c| machine.record(&outcome(c), TWO_THREE))
        .collect()
}

#[test]
fn one_unfit_result_removes_a_server_and_one_pass_restores_it() {
    use CheckState::{Down, Up};
    assert_eq!(
        run(&mut RiseFall::unchecked(), "+?+?"),
        [Some(Up), Some(Down), Some(Up), Some(Down)]
    );
    assert_eq!(run(&mut RiseFall::unchecked(), "?+"), [Some(Down), Some(Up)]);
    // A failed check after the one that found the server unfit requires `rise` passes again.
    assert_eq!(
        run(&mut RiseFall::unchecked(), "+?-++"),
        [Some(Up), Some(Down), None, None, Some(Up)]
    );
    assert_eq!(
        run(&mut RiseFall::unchecked(), "+-?+"),
        [Some(Up), None, Some(Down), Some(Up)]
    );
}

#[test]
fn the_verdict_tells_a_standby_from_a_server_that_is_down() {
    let verdicts = |results: &str| {
        let mut machine = RiseFall::unchecked();
        let outcomes = results.chars().map(|sign| {
            machine.record(&outcome(sign), TWO_THREE);
            match machine.verdict() {
                CheckVerdict::Unchecked => '.',
                CheckVerdict::Up => 'U',
                CheckVerdict::WrongRole => 'W',
                CheckVerdict::Down => 'D',
            }
        });
        outcomes.collect::<String>()
    };
    assert_eq!(verdicts("?--?---?"), "WWWWWWDW");
    assert_eq!(verdicts("?--+++"), "WWWWUU", "it answers, and needs `rise` passes");
    assert_eq!(
        verdicts("+<<<--<---"),
        "UUUWWWWWWD",
        "too far behind counts as the wrong role"
    );
    assert_eq!(verdicts("+---?-"), "UUUDWW");
    assert_eq!(verdicts("--?x?+"), "DDWDWU");
    assert_eq!(verdicts("-+|++"), "DDDDU");
    assert_eq!(verdicts("?|-|--"), "WWWWWW", "it lives, but refuses checks");
    assert_eq!(
        verdicts("|+--?---|-"),
        "..DDWWWDDD",
        "its state is Down, but the verdict stays Unchecked until a check fails"
    );
}

#[test]
fn a_server_that_reports_itself_down_is_out_at_once() {
    use CheckState::{Down, Up};
    let mut machine = RiseFall::unchecked();
    assert_eq!(run(&mut machine, "+x"), [Some(Up), Some(Down)]);
    assert!(!machine.is_healthy() && !machine.is_unfit() && machine.is_suspended());
    assert_eq!(run(&mut machine, "+"), [Some(Up)], "one pass brings it back");
    assert!(machine.is_healthy() && !machine.is_suspended());
    // A failed check after the one that reported the server down requires `rise` passes again.
    assert_eq!(run(&mut machine, "x-++"), [Some(Down), None, None, Some(Up)]);
    // The result `Down` says nothing about the role.
    run(&mut machine, "?x");
    assert!(machine.is_unfit() && !machine.is_healthy());
}

#[test]
fn a_lagging_server_follows_rise_and_fall_and_stays_lagging_until_it_fails() {
    use CheckState::{Down, Up};
    let mut machine = RiseFall::unchecked();
    assert_eq!(run(&mut machine, "+<<"), [Some(Up), None, None]);
    assert!(!machine.is_down_for_lag(), "it is still up");
    assert_eq!(run(&mut machine, "+<-<"), [None, None, None, Some(Down)]);
    assert!(machine.is_down_for_lag());
    assert_eq!(run(&mut machine, "--"), [None, None]);
    assert!(machine.is_down_for_lag());
    run(&mut machine, "-");
    assert!(!machine.is_down_for_lag(), "it has failed `fall` times");
    run(&mut machine, "<");
    assert!(machine.is_down_for_lag(), "it answers again, but is behind");
    assert_eq!(run(&mut machine, "+<++"), [None, None, None, Some(Up)]);
    assert!(!machine.is_down_for_lag());
    run(&mut machine, "<<<?");
    assert!(!machine.is_down_for_lag(), "its role is wrong");
}

#[test]
fn a_refused_check_keeps_a_server_up_and_restores_one_that_accepts_sessions() {
    use CheckState::{Down, Up};
    assert_eq!(run(&mut RiseFall::unchecked(), "!"), [Some(Up)]);
    assert_eq!(run(&mut RiseFall::unchecked(), "|"), [Some(Down)]);
    let mut machine = RiseFall::unchecked();
    assert_eq!(run(&mut machine, "+!!!!||||"), [&[Some(Up)][..], &[None; 8]].concat());
    assert_eq!(machine.refusal(), RefusedCheck::Suspended);
    // A refused check proves that the server lives: failures before it do not count.
    assert_eq!(run(&mut machine, "--!--"), [None; 5]);
    assert_eq!(run(&mut machine, "-||"), [Some(Down), None, None]);
    assert_eq!(run(&mut machine, "!!"), [None, Some(Up)]);
    // But a refused check does not find out the role.
    assert_eq!(run(&mut machine, "?!!!"), [Some(Down), None, None, None]);
}

#[test]
fn a_refused_check_counts_towards_rise_if_sessions_are_accepted() {
    let last = |results| run(&mut RiseFall::unchecked(), results).pop().unwrap();
    for (results, expected) in [
        ("-+!", Some(CheckState::Up)),
        ("-!+", Some(CheckState::Up)),
        ("-+|", None),
        ("-+|!", None),
        ("-+|+", None),
        ("-|!", None),
    ] {
        assert_eq!(last(results), expected, "{results}");
    }
}

#[test]
fn the_first_result_alone_decides_the_state() {
    assert_eq!(run(&mut RiseFall::unchecked(), "+"), [Some(CheckState::Up)]);
    assert_eq!(run(&mut RiseFall::unchecked(), "-"), [Some(CheckState::Down)]);
}

#[test]
fn fall_and_rise_count_results_in_a_row() {
    let mut machine = RiseFall::unchecked();
    assert_eq!(
        run(&mut machine, "+--+--"),
        [Some(CheckState::Up), None, None, None, None, None]
    );
    assert_eq!(run(&mut machine, "-"), [Some(CheckState::Down)]);
    assert_eq!(run(&mut machine, "+-+"), [None, None, None]);
    assert_eq!(run(&mut machine, "+"), [Some(CheckState::Up)]);
}

#[test]
fn a_check_that_this_host_prevents_changes_no_state_but_may_stop_new_sessions() {
    for (before, state) in [
        ("", CheckState::Unchecked),
        ("+", CheckState::Up),
        ("+---", CheckState::Down),
        ("+?", CheckState::Down),
        ("+x", CheckState::Down),
    ] {
        let mut machine = RiseFall::unchecked();
        run(&mut machine, before);
        let (verdict, healthy) = (machine.verdict(), machine.is_healthy());
        run(&mut machine, "hhhhhh");
        assert_eq!(machine.refusal(), RefusedCheck::Tolerated, "{before}");
        run(&mut machine, "HHHHHH");
        assert_eq!(machine.refusal(), RefusedCheck::Suspended, "{before}");
        assert!(machine.is_suspended(), "{before}");
        let after = (machine.state(), machine.verdict(), machine.is_healthy());
        assert_eq!(after, (state, verdict, healthy), "{before}");
    }
    let mut machine = RiseFall::unchecked();
    assert_eq!(
        run(&mut machine, "+-h-h-").last(),
        Some(&Some(CheckState::Down)),
        "failures add up"
    );
    run(&mut machine, "h+");
    assert_eq!(machine.refusal(), RefusedCheck::None);
}
