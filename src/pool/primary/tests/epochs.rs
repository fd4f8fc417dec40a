//! Servers that Sentinels name in a configuration epoch. In an epoch that is not higher than the remembered one,
//! another server becomes the primary only at its second check in which the Sentinels agree on it.

use proptest::prelude::*;

use super::*;

/// Named in this epoch, and the Sentinels agree on that.
fn agreed(epoch: u32) -> Observation {
    named(epoch, true)
}

/// Named in this epoch by some Sentinels, and the Sentinels do not agree on a server.
fn reported(epoch: u32) -> Observation {
    named(epoch, false)
}

fn named(epoch: u32, is_agreed: bool) -> Observation {
    Observation::Primary {
        system_identifier: None,
        claim: Claim {
            timeline: Some(epoch),
            numbering: Numbering::Epoch { is_agreed },
        },
    }
}

const REDIS_REPLICA: Observation = Observation::Replica {
    system_identifier: None,
};

/// `a` is the primary in epoch 5.
fn in_epoch_5() -> PrimaryWatch {
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("b", REDIS_REPLICA), ("a", agreed(5))]);
    pool
}

#[test]
fn reset_sentinels_do_not_make_the_primary_an_old_primary() {
    for mut pool in [in_epoch_5(), watch(in_epoch_5().memory(), &["a", "b"])] {
        let steps = [("a", agreed(0)), ("b", REDIS_REPLICA), ("a", agreed(0))];
        assert_eq!(observe(&mut pool, &steps), ["a", "a", "a"]);
        assert_eq!(pool.known().unwrap().timeline, Some(0));
        // The next failover counts, although the epoch of the former Sentinels was higher.
        assert_eq!(observe(&mut pool, &[("a", DOWN), ("b", agreed(1))]), ["", "b"]);
        assert_eq!(observe(&mut pool, &[("a", reported(0))]), ["b"]);
        assert_eq!(reason(&pool, "a"), "an old primary: epoch 0, and b is in 1");
    }
}

#[test]
fn a_primary_stays_one_when_the_sentinels_are_taken_out_of_the_configuration() {
    let without_epoch = Observation::Primary {
        system_identifier: None,
        claim: Claim {
            timeline: None,
            numbering: Numbering::None,
        },
    };
    for mut pool in [in_epoch_5(), watch(in_epoch_5().memory(), &["a", "b"])] {
        observe(&mut pool, &[("b", REDIS_REPLICA), ("a", without_epoch)]);
        assert_eq!(pool.in_force(), Some("a"));
        assert_eq!(pool.known().unwrap().timeline, None);
        let steps = [
            ("b", without_epoch),
            ("b", REDIS_REPLICA),
            ("a", DOWN),
            ("b", without_epoch),
            ("a", without_epoch),
        ];
        assert_eq!(observe(&mut pool, &steps), ["a", "a", "", "b", "b"]);
    }
}

#[test]
fn a_lower_epoch_of_a_minority_does_not_change_the_memory() {
    let mut pool = in_epoch_5();
    assert_eq!(
        observe(&mut pool, &[("a", reported(3)), ("a", reported(3))]),
        ["a", "a"]
    );
    assert_eq!(pool.known().unwrap().timeline, Some(5));
    let steps = [("a", DOWN), ("b", reported(4)), ("b", reported(4))];
    assert_eq!(observe(&mut pool, &steps), ["", "", ""]);
    assert_eq!(reason(&pool, "b"), "an old primary: epoch 4, and a was in 5");
}

#[test]
fn an_agreed_server_becomes_the_primary_even_without_a_higher_epoch() {
    for epoch in [0, 5] {
        let mut pool = in_epoch_5();
        assert_eq!(observe(&mut pool, &[("a", DOWN), ("b", agreed(epoch))]), ["", ""]);
        assert_eq!(observe(&mut pool, &[("b", agreed(epoch))]), ["b"]);
        assert_eq!(observe(&mut pool, &[("a", reported(0))]), ["b"]);
    }
    // Also after an operator has trusted a server, and so overruled an epoch.
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("a", reported(3)), ("b", reported(7))]);
    assert!(pool.trust("a"));
    assert_eq!(observe(&mut pool, &[("b", agreed(4)), ("b", agreed(4))]), ["a", "b"]);
}

#[test]
fn a_decision_of_an_operator_voids_a_check_before_it() {
    let mut pool = in_epoch_5();
    assert_eq!(observe(&mut pool, &[("b", agreed(0))]), ["a"]);
    assert!(pool.trust("a"));
    let steps = [("b", agreed(0)), ("b", agreed(0))];
    assert_eq!(observe(&mut pool, &steps), ["a", "b"]);
}

#[test]
fn the_primary_of_former_sentinels_is_rejected_at_once() {
    let mut pool = in_epoch_5();
    assert_eq!(observe(&mut pool, &[("b", agreed(0)), ("b", agreed(0))]), ["a", "b"]);
    assert_eq!(reason(&pool, "a"), "a second primary: b is the first");
}

#[test]
fn claims_of_former_sentinels_are_not_compared() {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [
        ("b", reported(3)),
        ("a", reported(4)),
        ("b", agreed(0)),
        ("b", agreed(0)),
        ("b", reported(0)),
        ("a", reported(4)),
    ];
    // `b` is preferred to the former claim of `a`, but not to its new one.
    assert_eq!(observe(&mut pool, &steps), ["", "a", "a", "b", "b", "a"]);
}

#[test]
fn a_check_begun_before_a_failover_does_not_restore_the_old_primary() {
    let mut pool = in_epoch_5();
    let steps = [("b", agreed(6)), ("a", agreed(5)), ("b", agreed(6)), ("a", agreed(5))];
    assert_eq!(observe(&mut pool, &steps), ["b", "b", "b", "b"]);
    assert_eq!(pool.known().unwrap().timeline, Some(6));
}

#[derive(Clone, Copy, Debug)]
enum SentinelEvent {
    Failover(usize),
    /// The Sentinels are set up anew, and watch this server.
    SetUpAnew(usize),
    Check(usize),
    /// A Sentinel that is cut off from the others names this server in this epoch, while no other one answers.
    CutOff(usize, u32),
    Hang(usize),
    Restart,
}

fn sentinel_events() -> impl Strategy<Value = Vec<SentinelEvent>> {
    let server = 0..SERVERS.len();
    let event = prop_oneof![
        2 => server.clone().prop_map(SentinelEvent::Failover),
        1 => server.clone().prop_map(SentinelEvent::SetUpAnew),
        8 => server.clone().prop_map(SentinelEvent::Check),
        2 => (server.clone(), 0..9_u32).prop_map(|(server, epoch)| SentinelEvent::CutOff(server, epoch)),
        2 => server.prop_map(SentinelEvent::Hang),
        1 => Just(SentinelEvent::Restart),
    ];
    prop::collection::vec(event, 1..60)
}

proptest! {
    #[test]
    fn the_agreed_server_becomes_the_primary_and_no_change_by_a_minority_lowers_the_epoch(events in sentinel_events()) {
        let (mut primary, mut epoch) = (0, 0);
        let mut pool = watch(None, &SERVERS);
        for event in events {
            let before = pool.in_force().map(str::to_owned);
            let remembered = pool.known().and_then(KnownPrimary::highest_timeline);
            match event {
                SentinelEvent::Failover(server) if server != primary => (primary, epoch) = (server, epoch + 1),
                SentinelEvent::Failover(_) => {}
                SentinelEvent::SetUpAnew(server) => (primary, epoch) = (server, 0),
                SentinelEvent::Check(server) if server == primary => pool.observe(SERVERS[server], agreed(epoch)),
                SentinelEvent::Check(server) => pool.observe(SERVERS[server], REDIS_REPLICA),
                SentinelEvent::CutOff(server, epoch) => {
                    pool.observe(SERVERS[server], reported(epoch));
                    if let Some(now) = pool.in_force() && before.as_deref() != Some(now) && Some(epoch) < remembered {
                        prop_assert_eq!(now, &*pool.known().unwrap().server);
                        prop_assert_eq!(pool.known().unwrap().timeline, remembered, "a lower epoch was taken over");
                    }
                }
                SentinelEvent::Hang(server) => pool.observe(SERVERS[server], DOWN),
                SentinelEvent::Restart => pool = watch(pool.memory(), &SERVERS),
            }
        }
        // After two rounds of checks, the server on which the Sentinels agree is the primary, whatever is remembered.
        for _ in 0..2 {
            for server in (0..SERVERS.len()).filter(|server| *server != primary) {
                pool.observe(SERVERS[server], REDIS_REPLICA);
            }
            pool.observe(SERVERS[primary], agreed(epoch));
        }
        prop_assert_eq!(pool.in_force(), Some(SERVERS[primary]));
    }
}
