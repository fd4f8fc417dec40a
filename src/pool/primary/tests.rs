use proptest::prelude::*;

use super::*;

mod epochs;
mod names;
mod without_timelines;

const SYSTEM: u64 = 7_000_000_000_000_000_001;

fn watch(known: Option<KnownPrimary>, servers: &[&str]) -> PrimaryWatch {
    let mut watch = PrimaryWatch::new(known);
    let labels: Vec<Arc<str>> = servers.iter().map(|server| Arc::from(*server)).collect();
    watch.set_servers(labels.iter().map(|label| (label, false)));
    watch
}

fn primary(timeline: impl Into<Option<u32>>) -> Observation {
    with_system(SYSTEM, timeline)
}

fn with_system(system: u64, timeline: impl Into<Option<u32>>) -> Observation {
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
const FAILED: Observation = Observation::Failed { is_down: false };
const DOWN: Observation = Observation::Failed { is_down: true };

/// The server in force after each of these observations; "" for none.
fn in_force(watch: &mut PrimaryWatch, observations: &[(&str, Observation)]) -> Vec<String> {
    let observe = |(server, observation): &(&str, Observation)| {
        watch.observe(server, *observation);
        watch.in_force().unwrap_or_default().to_owned()
    };
    observations.iter().map(observe).collect()
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
    assert_eq!(in_force(&mut pool, &steps), ["", "a", "a", "", "b", "b"]);
    assert_eq!(reason(&pool, "a"), "an old primary: timeline 3, and b is on 4");
    assert_eq!(pool.verdict("b"), PrimaryVerdict::Primary);
    let mut restarted = watch(pool.memory(), &["a", "b"]);
    assert_eq!(in_force(&mut restarted, &[("b", DOWN), ("a", primary(3))]), ["", ""]);
    assert_eq!(reason(&restarted, "a"), "an old primary: timeline 3, and b was on 4");
}

#[test]
fn a_server_that_is_down_is_rejected_when_another_is_promoted() {
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &[("b", REPLICA), ("a", primary(1)), ("a", DOWN)]);
    assert_eq!(pool.verdict("a"), PrimaryVerdict::Undecided);
    in_force(&mut pool, &[("b", primary(2))]);
    assert_eq!(reason(&pool, "a"), "an old primary: timeline 1, and b is on 2");
    // It has not answered since: it is not a rival.
    in_force(&mut pool, &[("a", FAILED)]);
    assert_eq!(reason(&pool, "a"), "an old primary: timeline 1, and b is on 2");
    assert_eq!(pool.claimants().count(), 1);
    in_force(&mut pool, &[("a", primary(1))]);
    assert_eq!(pool.claimants().count(), 2);
}

#[test]
fn an_old_primary_gives_way_before_its_next_check() {
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &[("b", REPLICA), ("a", primary(1)), ("b", primary(2))]);
    assert!(matches!(pool.verdict("a"), PrimaryVerdict::Rejected(_)));
}

#[test]
fn the_remembered_one_of_two_primaries_on_a_timeline_stays() {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [
        ("a", primary(1)),
        ("b", REPLICA),
        ("b", primary(1)),
        ("a", DOWN),
        ("b", primary(1)),
    ];
    assert_eq!(in_force(&mut pool, &steps), ["", "a", "a", "", ""]);
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
    assert_eq!(in_force(&mut pool, &steps), ["", "", "", "", ""]);
    assert!(!pool.trust("b"), "it is down");
    assert!(pool.trust("a"));
    assert_eq!(in_force(&mut pool, &[("a", primary(2)), ("b", primary(2))]), ["a", "a"]);
    assert!(pool.trust("b"));
    assert_eq!((pool.in_force(), pool.claimants().count()), (Some("b"), 2));
}

/// In a switchover, the old primary stops after a check that passed, and another server is promoted before its next check.
#[test]
fn rivals_are_those_that_call_themselves_primary_at_the_same_time() {
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
    ] {
        assert_eq!(claimants(server, observation), expected, "{server} {observation:?}");
    }
}

#[test]
fn trust_in_an_old_primary_overrules_known_timelines_but_no_later_one() {
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &[("a", primary(3)), ("b", primary(4)), ("b", DOWN)]);
    assert!(pool.trust("a"));
    assert_eq!(in_force(&mut pool, &[("a", primary(3)), ("b", primary(4))]), ["a", "a"]);
    assert_eq!(
        reason(&pool, "b"),
        "an operator has decided against timeline 4: a is the primary"
    );
    let mut restarted = watch(pool.memory(), &["a", "b"]);
    assert_eq!(
        in_force(&mut restarted, &[("b", primary(4)), ("a", primary(3))]),
        ["", "a"]
    );
    assert_eq!(in_force(&mut pool, &[("b", primary(5))]), ["b"]);
    assert!(!pool.trust("c"));
}

#[test]
fn a_promotion_after_a_trust_counts_and_an_overruled_primary_stays_out() {
    let mut pool = watch(None, &["a", "b", "c", "d"]);
    let steps = [("a", primary(3)), ("b", primary(7)), ("c", REPLICA), ("d", DOWN)];
    in_force(&mut pool, &steps);
    assert!(pool.trust("a"));
    let steps = [
        ("b", primary(7)),
        ("d", primary(5)), // promoted before an operator decided
        ("a", DOWN),
        ("c", primary(4)), // follows a, and is promoted
        ("b", primary(7)),
        ("d", primary(5)),
    ];
    assert_eq!(in_force(&mut pool, &steps), ["a", "a", "", "c", "c", "c"]);
    assert_eq!(reason(&pool, "a"), "an old primary: timeline 3, and c is on 4");
    let mut restarted = watch(pool.memory(), &["a", "b", "c", "d"]);
    let steps = [
        ("b", primary(7)),
        ("c", primary(4)),
        ("b", REPLICA), // follows c, and is promoted later
        ("b", primary(5)),
    ];
    assert_eq!(in_force(&mut restarted, &steps), ["", "c", "c", "b"]);
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
    assert_eq!(in_force(&mut pool, &steps), ["", "a", "a", "a", "a", "", "a"]);
    let expected = "the timeline of the server cannot be read, and a was on 4";
    assert_eq!(reason(&pool, "b"), expected);
    let mut restarted = watch(pool.memory(), &["a"]);
    assert_eq!(in_force(&mut restarted, &[("a", primary(None))]), [""]);
    assert_eq!(reason(&restarted, "a"), expected);
    let mut restarted = watch(restarted.memory(), &["a", "b"]);
    assert_eq!(
        in_force(&mut restarted, &[("b", REPLICA), ("a", primary(None))]),
        ["", ""]
    );
    assert!(restarted.trust("a"));
    assert_eq!(restarted.in_force(), Some("a"));
    assert_eq!(in_force(&mut restarted, &[("b", primary(5))]), ["b"], "a promotion");
}

#[test]
fn an_unknown_primary_is_rejected_beside_one_with_an_unreadable_timeline() {
    let mut pool = watch(None, &["a", "b"]);
    assert_eq!(
        in_force(&mut pool, &[("a", primary(None)), ("b", primary(4))]),
        ["", ""]
    );
}

#[test]
fn two_primaries_on_one_higher_timeline_are_both_rejected() {
    let mut pool = watch(None, &["a", "b", "c"]);
    in_force(&mut pool, &[("b", REPLICA), ("c", REPLICA), ("a", primary(None))]);
    let steps = [
        ("b", primary(5)),
        ("c", primary(5)),
        ("a", primary(4)), // only now it is known that the others are higher
        ("b", primary(5)),
        ("c", primary(6)),
    ];
    assert_eq!(in_force(&mut pool, &steps), ["a", "a", "", "", "c"]);
}

#[test]
fn another_database_is_used_once_all_servers_have_it() {
    let known = KnownPrimary {
        server: "a".into(),
        system_identifier: Some(SYSTEM),
        timeline: Some(9),
        ..KnownPrimary::default()
    };
    let mut pool = watch(Some(known), &["a", "b"]);
    let steps = [("a", with_system(5, 1)), ("b", REPLICA), ("b", DOWN)];
    assert_eq!(in_force(&mut pool, &steps), ["", "", ""]);
    let expected = format!("another database: its system identifier is 5, and that of a is {SYSTEM}");
    assert_eq!(reason(&pool, "a"), expected);
    let replica = Observation::Replica {
        system_identifier: Some(5),
    };
    assert_eq!(
        in_force(&mut pool, &[("b", replica), ("a", with_system(5, 1))]),
        ["a", "a"]
    );
    assert_eq!(pool.known().unwrap().timeline, Some(1));
    // A stray server of a third database, on a high timeline, changes nothing.
    assert_eq!(in_force(&mut pool, &[("b", with_system(6, 30))]), ["a"]);
}

/// An operator disables these servers of the pool, and no others.
fn disable(pool: &mut PrimaryWatch, disabled: &[&str]) {
    let labels: Vec<_> = pool.servers.keys().map(Arc::clone).collect();
    pool.set_servers(labels.iter().map(|label| (label, disabled.contains(&&**label))));
}

#[test]
fn a_server_of_another_database_never_takes_over() {
    let start = || {
        let mut pool = watch(None, &["a", "x"]);
        let steps = [
            ("a", primary(3)),
            ("x", DOWN),
            ("x", with_system(5, 9)),
            ("a", primary(3)),
        ];
        assert_eq!(in_force(&mut pool, &steps), ["", "a", "a", "a"]);
        pool
    };
    let expected = format!("another database: its system identifier is 5, and that of a is {SYSTEM}");
    let mut pool = start();
    disable(&mut pool, &["a"]);
    assert_eq!(in_force(&mut pool, &[("x", with_system(5, 9))]), [""]);
    assert_eq!(reason(&pool, "x"), expected);
    disable(&mut pool, &[]);
    assert_eq!(
        in_force(&mut pool, &[("x", with_system(5, 9)), ("a", primary(3))]),
        ["", "a"]
    );
    let left: Arc<str> = "x".into();
    let mut pool = start();
    pool.set_servers([(&left, false)].into_iter());
    assert_eq!(in_force(&mut pool, &[("x", with_system(5, 9))]), [""]);
    assert_eq!(reason(&pool, "x"), expected);
    assert!(pool.trust("x"), "an operator may say so");
}

#[test]
fn a_disabled_server_delays_no_decision_and_is_not_forgotten() {
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &[("b", Observation::Refused), ("a", primary(None))]);
    assert_eq!(pool.in_force(), None);
    disable(&mut pool, &["b"]);
    assert_eq!(in_force(&mut pool, &[("a", primary(None))]), ["a"]);
    // A server that was disabled may be an old primary, because nobody has checked it meanwhile.
    disable(&mut pool, &[]);
    let steps = [
        ("b", primary(None)),
        ("a", DOWN),
        ("b", primary(None)),
        ("b", REPLICA),
        ("a", primary(None)),
    ];
    assert_eq!(in_force(&mut pool, &steps), ["a", "", "", "", "a"]);
    // A replica succeeds a primary that is disabled.
    disable(&mut pool, &["a"]);
    assert_eq!(in_force(&mut pool, &[("b", primary(None))]), ["b"]);
    disable(&mut pool, &[]);
    let steps = [("a", primary(None)), ("b", DOWN), ("a", primary(None))];
    assert_eq!(in_force(&mut pool, &steps), ["b", "", ""]);
}

#[test]
fn the_reason_names_silent_servers_after_all_were_checked() {
    let mut pool = watch(None, &["a", "b", "c"]);
    in_force(&mut pool, &[("a", primary(1)), ("b", Observation::Refused)]);
    assert_eq!(pool.verdict("a"), PrimaryVerdict::Undecided);
    in_force(&mut pool, &[("c", FAILED)]);
    let expected = "not decided: the role of b, c is not known; `acequia pool trust` decides";
    assert_eq!(reason(&pool, "a"), expected);
    in_force(&mut pool, &[("c", REPLICA), ("b", REPLICA)]);
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
    assert_eq!(in_force(&mut pool, &steps), expected);
}

#[test]
fn without_timelines_a_promotion_beside_a_living_primary_does_not_count() {
    let promoted = [("b", REPLICA), ("a", primary(None)), ("b", primary(None))];
    let lives = [("a", primary(None)), ("a", FAILED), ("a", DOWN), ("b", primary(None))];
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &promoted);
    assert_eq!(in_force(&mut pool, &lives), ["a", "a", "", ""]);
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &promoted);
    in_force(&mut pool, &[("a", FAILED), ("b", primary(None))]);
    assert_eq!(in_force(&mut pool, &lives), ["a", "a", "", ""], "it failed once only");
    // `a` has not answered since then: it died before the other server was promoted.
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &promoted);
    assert_eq!(in_force(&mut pool, &lives[1..]), ["a", "b", "b"]);
}

#[test]
fn a_renamed_server_takes_over_as_the_primary() {
    let mut pool = watch(None, &["a"]);
    in_force(&mut pool, &[("a", primary(3))]);
    let labels: [Arc<str>; 2] = ["db1".into(), "db2".into()];
    pool.set_servers(labels.iter().map(|label| (label, false)));
    let steps = [("db1", primary(3)), ("db2", primary(2))];
    assert_eq!(in_force(&mut pool, &steps), ["", "db1"]);
}

#[test]
fn an_unknown_primary_is_rejected_beside_a_server_that_refused_its_first_check() {
    let mut pool = watch(None, &["a", "b"]);
    let refused = [
        ("a", Observation::Refused),
        ("b", primary(3)),
        ("a", Observation::Refused),
    ];
    assert_eq!(in_force(&mut pool, &refused), ["", "", ""]);
    let expected = "not decided: the role of a is not known; `acequia pool trust` decides";
    assert_eq!(reason(&pool, "b"), expected);
    assert_eq!(in_force(&mut pool, &[("a", primary(4))]), ["a"]);
    // Its reported role is kept, and it is alive.
    assert_eq!(in_force(&mut pool, &refused), ["a", "a", "a"]);
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &refused);
    assert!(pool.trust("b"));
    assert_eq!(pool.in_force(), Some("b"));
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &refused);
    assert_eq!(in_force(&mut pool, &[("a", FAILED), ("a", DOWN)]), ["", "b"]);
}

#[test]
fn a_server_that_refuses_checks_makes_another_primary_a_rival() {
    let mut pool = watch(None, &["a", "b"]);
    in_force(&mut pool, &[("b", REPLICA), ("a", primary(None)), ("b", primary(None))]);
    let steps = [("a", Observation::Refused), ("a", DOWN), ("b", primary(None))];
    assert_eq!(in_force(&mut pool, &steps), ["a", "", ""]);
}

/// Servers of one database, as they really are.
#[derive(Clone, Debug)]
struct Cluster {
    /// The timeline of a primary; `None`: a replica.
    timelines: Vec<Option<u32>>,
    hung: Vec<bool>,
    newest: u32,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Promotes a server, whether or not another primary lives.
    Promote(usize),
    /// Makes a server follow another one.
    Demote(usize),
    Hang(usize),
    Resume(usize),
    Check(usize),
    /// Restarts this process. It keeps only the remembered primary.
    Restart,
}

const SERVERS: [&str; 3] = ["a", "b", "c"];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let server = 0..SERVERS.len();
    let event = prop_oneof![
        1 => server.clone().prop_map(Event::Promote),
        1 => server.clone().prop_map(Event::Demote),
        1 => server.clone().prop_map(Event::Hang),
        2 => server.clone().prop_map(Event::Resume),
        8 => server.prop_map(Event::Check),
        1 => Just(Event::Restart),
    ];
    prop::collection::vec(event, 1..80)
}

impl Cluster {
    fn new() -> Self {
        Self {
            timelines: vec![Some(1), None, None],
            hung: vec![false; SERVERS.len()],
            newest: 1,
        }
    }

    fn observation(&self, server: usize) -> Observation {
        match self.timelines[server] {
            _ if self.hung[server] => DOWN,
            None => REPLICA,
            timeline => primary(timeline),
        }
    }

    /// Applies an event that is not a check.
    fn apply(&mut self, event: Event) {
        match event {
            Event::Promote(server) if self.timelines[server].is_none() => {
                self.newest += 1;
                self.timelines[server] = Some(self.newest);
            }
            Event::Demote(server) => self.timelines[server] = None,
            Event::Hang(server) => self.hung[server] = true,
            Event::Resume(server) => self.hung[server] = false,
            Event::Promote(_) | Event::Check(_) | Event::Restart => {}
        }
    }
}

proptest! {
    #[test]
    fn a_known_old_primary_is_never_used(events in events()) {
        let mut cluster = Cluster::new();
        let mut pool = watch(None, &SERVERS);
        let mut highest_accepted = 0;
        for event in events {
            cluster.apply(event);
            match event {
                Event::Check(server) => pool.observe(SERVERS[server], cluster.observation(server)),
                Event::Restart => pool = watch(pool.memory(), &SERVERS),
                _ => {}
            }
            let Some(server) = pool.in_force() else { continue };
            let known = pool.known().unwrap();
            prop_assert_eq!(&*known.server, server);
            prop_assert!(known.timeline.unwrap() >= highest_accepted);
            highest_accepted = known.timeline.unwrap();
            // Every other known claim is for a lower timeline, or is rejected.
            for other in SERVERS.iter().filter(|other| **other != server) {
                prop_assert_ne!(pool.verdict(other), PrimaryVerdict::Primary);
            }
        }
        // Once a server on a timeline above all others has been checked, it is the primary.
        let last = Event::Promote(2);
        cluster.apply(Event::Demote(2));
        cluster.apply(Event::Resume(2));
        cluster.apply(last);
        for (index, server) in SERVERS.iter().enumerate() {
            pool.observe(server, cluster.observation(index));
        }
        prop_assert_eq!(pool.in_force(), Some("c"));
    }

    #[test]
    fn the_order_of_the_first_checks_does_not_matter(
        timelines in prop::collection::vec(prop::option::of(1u32..4), 3),
        order in Just(vec![0, 1, 2]).prop_shuffle(),
    ) {
        let observation = |index: usize| timelines[index].map_or(REPLICA, primary);
        let mut pool = watch(None, &SERVERS);
        for index in order {
            prop_assert_eq!(pool.in_force(), None);
            pool.observe(SERVERS[index], observation(index));
        }
        let top = timelines.iter().max().copied().flatten();
        let tops: Vec<_> = (0..3).filter(|index| top.is_some() && timelines[*index] == top).collect();
        let expected = (tops.len() == 1).then(|| SERVERS[tops[0]]);
        prop_assert_eq!(pool.in_force(), expected);
    }
}
