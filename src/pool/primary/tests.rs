use super::*;

mod another_database;
mod departed;
mod epochs;
mod generated;
mod names;
mod without_timelines;

const SYSTEM: u64 = 7_000_000_000_000_000_001;

const SERVERS: [&str; 3] = ["a", "b", "c"];

fn watch(known: Option<KnownPrimary>, servers: &[&str]) -> PrimaryWatch {
    let mut watch = PrimaryWatch::new(known);
    let labels: Vec<Arc<str>> = servers.iter().map(|server| Arc::from(*server)).collect();
    watch.set_servers(labels.iter().map(|label| (label, false)));
    watch
}

fn primary(timeline: impl Into<Option<u32>>) -> Observation {
    primary_of(SYSTEM, timeline)
}

fn primary_of(system: u64, timeline: impl Into<Option<u32>>) -> Observation {
    Observation::Primary {
        system_identifier: Some(system),
        claim: Claim {
            timeline: timeline.into(),
            ..Claim::default()
        },
    }
}

const REPLICA: Observation = Observation::Replica {
    system_identifier: Some(SYSTEM),
};
const REFUSED: Observation = Observation::Refused { accepts_sessions: true };
const FAILED: Observation = Observation::Failed { is_down: false };
const DOWN: Observation = Observation::Failed { is_down: true };

/// Records each of these observations. Returns the primary after each; "" if there is none.
fn observe(watch: &mut PrimaryWatch, observations: &[(&str, Observation)]) -> Vec<String> {
    let observe_one = |(server, observation): &(&str, Observation)| {
        watch.observe(server, *observation);
        watch.in_force().unwrap_or_default().to_owned()
    };
    observations.iter().map(observe_one).collect()
}

fn reason(watch: &PrimaryWatch, server: &str) -> String {
    match watch.verdict(server) {
        PrimaryVerdict::Rejected(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_returning_old_primary_is_rejected_with_both_timelines() {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [
        ("a", primary(3)), // b has not been checked
        ("b", REPLICA),
        ("a", FAILED),
        ("a", DOWN),
        ("b", primary(4)),
        ("a", primary(3)),
    ];
    assert_eq!(observe(&mut pool, &steps), ["", "a", "a", "", "b", "b"]);
    assert_eq!(reason(&pool, "a"), "an old primary: timeline 3, and b is on 4");
    assert_eq!(pool.verdict("b"), PrimaryVerdict::Primary);
    let mut restarted = watch(pool.memory(), &["a", "b"]);
    assert_eq!(observe(&mut restarted, &[("b", DOWN), ("a", primary(3))]), ["", ""]);
    assert_eq!(reason(&restarted, "a"), "an old primary: timeline 3, and b was on 4");
}

#[test]
fn a_server_that_is_down_is_rejected_when_another_is_promoted() {
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("b", REPLICA), ("a", primary(1)), ("a", DOWN)]);
    assert_eq!(pool.verdict("a"), PrimaryVerdict::Undecided);
    observe(&mut pool, &[("b", primary(2))]);
    assert_eq!(reason(&pool, "a"), "an old primary: timeline 1, and b is on 2");
    // `a` has not answered since then, so it is no claimant.
    observe(&mut pool, &[("a", FAILED)]);
    assert_eq!(reason(&pool, "a"), "an old primary: timeline 1, and b is on 2");
    assert_eq!(pool.claimants().count(), 1);
    observe(&mut pool, &[("a", primary(1))]);
    assert_eq!(pool.claimants().count(), 2);
}

#[test]
fn an_old_primary_gives_way_before_its_next_check() {
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("b", REPLICA), ("a", primary(1)), ("b", primary(2))]);
    assert!(matches!(pool.verdict("a"), PrimaryVerdict::Rejected(_)));
}

#[test]
fn a_second_primary_on_the_timeline_of_the_remembered_one_is_rejected() {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [
        ("a", primary(1)),
        ("b", REPLICA),
        ("b", primary(1)),
        ("a", DOWN),
        ("b", primary(1)),
    ];
    assert_eq!(observe(&mut pool, &steps), ["", "a", "a", "", ""]);
    assert_eq!(reason(&pool, "b"), "a second primary on timeline 1: a is the first");
}

#[test]
fn two_unknown_primaries_are_rejected_until_one_is_trusted() {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [
        ("a", primary(2)),
        ("b", primary(2)),
        ("a", primary(2)),
        ("b", DOWN),
        ("a", primary(2)),
    ];
    assert_eq!(observe(&mut pool, &steps), ["", "", "", "", ""]);
    assert!(!pool.trust("b"), "it is down");
    assert!(pool.trust("a"));
    assert_eq!(observe(&mut pool, &[("a", primary(2)), ("b", primary(2))]), ["a", "a"]);
    assert!(pool.trust("b"));
    assert_eq!((pool.in_force(), pool.claimants().count()), (Some("b"), 2));
}

const STOPPING: Observation = Observation::Refused {
    accepts_sessions: false,
};

/// In a switchover, the old primary stops after a check that passed, and another server is promoted before the old
/// primary is checked again. The old primary is no claimant then.
#[test]
fn claimants_are_servers_that_call_themselves_primary_at_the_same_time() {
    let mut pool = watch(None, &["a", "b"]);
    let mut claimants = |server: &str, observation| {
        pool.observe(server, observation);
        pool.claimants().map(|label| &**label).collect::<Vec<_>>().join(" ")
    };
    for (server, observation, expected) in [
        ("b", REPLICA, ""),
        ("a", primary(1), "a"),
        ("a", primary(1), "a"),
        ("b", primary(2), "b"),
        ("a", FAILED, "b"),
        ("b", primary(2), "b"),
        ("a", REPLICA, "b"),
        ("b", primary(2), "b"),
        ("a", primary(3), "a"),
        ("b", primary(2), "a b"), // it was not demoted
        ("a", primary(3), "a b"),
        ("b", FAILED, "a b"),
        ("b", DOWN, "a"),
        ("b", primary(2), "a b"),
        ("b", REPLICA, "a"),
        ("a", REFUSED, "a"),
        ("b", primary(4), "b"),
        ("a", REFUSED, "a b"), // it accepts sessions: it is still a primary
        ("b", FAILED, "a b"),
        ("b", REPLICA, "a"),
        ("b", primary(5), "b"),
        ("a", STOPPING, "b"),
        ("a", DOWN, "b"),
        ("a", REFUSED, "b"), // it may have been restarted as a replica
    ] {
        assert_eq!(claimants(server, observation), expected, "{server} {observation:?}");
    }
}

#[test]
fn trust_in_an_old_primary_overrules_known_timelines_but_no_later_one() {
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("a", primary(3)), ("b", primary(4)), ("b", DOWN)]);
    assert!(pool.trust("a"));
    assert_eq!(observe(&mut pool, &[("a", primary(3)), ("b", primary(4))]), ["a", "a"]);
    assert_eq!(
        reason(&pool, "b"),
        "an operator has decided against timeline 4: a is the primary"
    );
    let mut restarted = watch(pool.memory(), &["a", "b"]);
    assert_eq!(
        observe(&mut restarted, &[("b", primary(4)), ("a", primary(3))]),
        ["", "a"]
    );
    assert_eq!(observe(&mut pool, &[("b", primary(5))]), ["b"]);
    assert!(!pool.trust("c"), "it is not in the pool");
}

#[test]
fn a_promotion_after_a_trust_counts_and_an_overruled_primary_stays_out() {
    let mut pool = watch(None, &["a", "b", "c", "d"]);
    let steps = [("a", primary(3)), ("b", primary(7)), ("c", REPLICA), ("d", DOWN)];
    observe(&mut pool, &steps);
    assert!(pool.trust("a"));
    let steps = [
        ("b", primary(7)),
        ("d", primary(5)), // promoted before an operator decided
        ("a", DOWN),
        ("c", primary(4)), // follows a, and is promoted
        ("b", primary(7)),
        ("d", primary(5)),
    ];
    assert_eq!(observe(&mut pool, &steps), ["a", "a", "", "c", "c", "c"]);
    assert_eq!(reason(&pool, "a"), "an old primary: timeline 3, and c is on 4");
    let mut restarted = watch(pool.memory(), &["a", "b", "c", "d"]);
    let steps = [
        ("b", primary(7)),
        ("c", primary(4)),
        ("b", REPLICA), // follows c, and is promoted later
        ("b", primary(5)),
    ];
    assert_eq!(observe(&mut restarted, &steps), ["", "c", "c", "b"]);
}

#[test]
fn a_primary_with_an_unreadable_timeline_is_not_mistaken_for_the_known_one() {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [
        ("b", REPLICA),
        ("a", primary(4)),
        ("a", primary(None)), // it has answered all the time
        ("b", primary(None)),
        ("a", FAILED),
        ("a", primary(None)), // it may have started anew on an old timeline
        ("a", primary(4)),
    ];
    assert_eq!(observe(&mut pool, &steps), ["", "a", "a", "a", "a", "", "a"]);
    let expected = "the timeline of the server cannot be read, and a was on 4";
    assert_eq!(reason(&pool, "b"), expected);
    let mut restarted = watch(pool.memory(), &["a"]);
    assert_eq!(observe(&mut restarted, &[("a", primary(None))]), [""]);
    assert_eq!(reason(&restarted, "a"), expected);
    let mut restarted = watch(restarted.memory(), &["a", "b"]);
    assert_eq!(
        observe(&mut restarted, &[("b", REPLICA), ("a", primary(None))]),
        ["", ""]
    );
    assert!(restarted.trust("a"));
    assert_eq!(restarted.in_force(), Some("a"));
    assert_eq!(observe(&mut restarted, &[("b", primary(5))]), ["b"], "a promotion");
}

#[test]
fn neither_of_two_unknown_primaries_is_in_force_if_one_has_an_unreadable_timeline() {
    let mut pool = watch(None, &["a", "b"]);
    assert_eq!(observe(&mut pool, &[("a", primary(None)), ("b", primary(4))]), ["", ""]);
}

#[test]
fn two_primaries_on_one_higher_timeline_are_both_rejected() {
    let mut pool = watch(None, &["a", "b", "c"]);
    observe(&mut pool, &[("b", REPLICA), ("c", REPLICA), ("a", primary(None))]);
    let steps = [
        ("b", primary(5)),
        ("c", primary(5)),
        ("a", primary(4)), // only now it is known that the others are higher
        ("b", primary(5)),
        ("c", primary(6)),
    ];
    assert_eq!(observe(&mut pool, &steps), ["a", "a", "", "", "c"]);
}

/// An operator disables these servers of the pool, and no others.
fn set_disabled(pool: &mut PrimaryWatch, disabled: &[&str]) {
    let labels: Vec<_> = pool.servers.keys().map(Arc::clone).collect();
    pool.set_servers(labels.iter().map(|label| (label, disabled.contains(&&**label))));
}

#[test]
fn a_disabled_server_delays_no_decision_and_does_not_return_as_the_primary() {
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("b", REFUSED), ("a", primary(None))]);
    assert_eq!(pool.in_force(), None);
    set_disabled(&mut pool, &["b"]);
    assert_eq!(observe(&mut pool, &[("a", primary(None))]), ["a"]);
    // A server that was disabled may be an old primary, because nobody has checked it meanwhile.
    set_disabled(&mut pool, &[]);
    let steps = [
        ("b", primary(None)),
        ("a", DOWN),
        ("b", primary(None)),
        ("b", REPLICA),
        ("a", primary(None)),
    ];
    assert_eq!(observe(&mut pool, &steps), ["a", "", "", "", "a"]);
    // A replica succeeds a primary that is disabled.
    set_disabled(&mut pool, &["a"]);
    assert_eq!(observe(&mut pool, &[("b", primary(None))]), ["b"]);
    set_disabled(&mut pool, &[]);
    let steps = [("a", primary(None)), ("b", DOWN), ("a", primary(None))];
    assert_eq!(observe(&mut pool, &steps), ["b", "", ""]);
}

#[test]
fn the_reason_names_servers_of_unknown_role_after_all_were_checked() {
    let mut pool = watch(None, &["a", "b", "c"]);
    observe(&mut pool, &[("a", primary(1)), ("b", REFUSED)]);
    assert_eq!(pool.verdict("a"), PrimaryVerdict::Undecided);
    observe(&mut pool, &[("c", FAILED)]);
    let expected = "not decided: the role of b, c is not known; `acequia pool trust` decides";
    assert_eq!(reason(&pool, "a"), expected);
    observe(&mut pool, &[("c", REPLICA), ("b", REPLICA)]);
    assert_eq!(pool.verdict("a"), PrimaryVerdict::Primary);
}

#[test]
fn without_timelines_the_primary_stays_until_it_is_gone() {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [
        ("b", REPLICA),
        ("a", primary(None)),
        ("b", primary(None)), // contested
        ("b", REPLICA),
        ("a", FAILED),
        ("b", primary(None)), // a may be alive
        ("a", DOWN),
        ("b", primary(None)),
        ("a", primary(None)),
        ("b", DOWN),
        ("a", primary(None)), // its claim is still the rejected one
        ("a", REPLICA),
        ("a", primary(None)),
    ];
    let expected = ["", "a", "a", "a", "a", "a", "b", "b", "b", "", "", "", "a"];
    assert_eq!(observe(&mut pool, &steps), expected);
}

#[test]
fn without_timelines_a_promotion_beside_a_living_primary_does_not_count() {
    let promoted = [("b", REPLICA), ("a", primary(None)), ("b", primary(None))];
    let a_answers_and_dies = [("a", primary(None)), ("a", FAILED), ("a", DOWN), ("b", primary(None))];
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &promoted);
    assert_eq!(observe(&mut pool, &a_answers_and_dies), ["a", "a", "", ""]);
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &promoted);
    observe(&mut pool, &[("a", FAILED), ("b", primary(None))]);
    assert_eq!(
        observe(&mut pool, &a_answers_and_dies),
        ["a", "a", "", ""],
        "it failed once only"
    );
    // If `a` has not answered since the promotion, it may have died before the promotion.
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &promoted);
    assert_eq!(observe(&mut pool, &a_answers_and_dies[1..]), ["a", "b", "b"]);
}

#[test]
fn an_unknown_primary_is_rejected_beside_a_server_that_refused_its_first_check() {
    let mut pool = watch(None, &["a", "b"]);
    let refused = [("a", REFUSED), ("b", primary(3)), ("a", REFUSED)];
    assert_eq!(observe(&mut pool, &refused), ["", "", ""]);
    let expected = "not decided: the role of a is not known; `acequia pool trust` decides";
    assert_eq!(reason(&pool, "b"), expected);
    assert_eq!(observe(&mut pool, &[("a", primary(4))]), ["a"]);
    // While `a` refuses checks, it counts as alive, and the role that it has reported is kept.
    assert_eq!(observe(&mut pool, &refused), ["a", "a", "a"]);
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &refused);
    assert!(pool.trust("b"));
    assert_eq!(pool.in_force(), Some("b"));
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &refused);
    assert_eq!(observe(&mut pool, &[("a", FAILED), ("a", DOWN)]), ["", "b"]);
}

#[test]
fn a_primary_that_refuses_a_check_is_alive_and_no_other_server_succeeds_it() {
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("b", REPLICA), ("a", primary(None)), ("b", primary(None))]);
    let steps = [("a", REFUSED), ("a", DOWN), ("b", primary(None))];
    assert_eq!(observe(&mut pool, &steps), ["a", "", ""]);
}
