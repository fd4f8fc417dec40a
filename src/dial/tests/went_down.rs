//! Servers that go out of use while they are connected to.

use std::time::SystemTime;

use super::*;
use crate::pool::{Override, ServerRegistry};

const THRESHOLDS: Thresholds = Thresholds { rise: 1, fall: 1 };

/// Dials in a pool of two servers that are up. `at_first_attempt` is called while the first is being connected to.
async fn dialled_while_connecting(
    registry: &ServerRegistry,
    panic_threshold: Option<u8>,
    at_first_attempt: impl Fn(&Pool) + Sync,
) -> Vec<ReportedAttempt> {
    let (a, b) = (listening(), listening());
    let server = |socket| registry.get_or_create(&"pool".into(), spec(socket), true);
    let members = [&a, &b].map(|socket| Member::new(server(socket), MemberConfig::default()));
    let pool = pool_with(members.into(), panic_threshold);
    let (_client, accepted) = client().await;
    for server in pool.servers().iter() {
        server.record_check(&CheckOutcome::Pass, THRESHOLDS);
    }
    let first = pool.servers()[0].id();
    let done = dialled_while(&pool, &OPTIONS, &accepted, |server| {
        if server.id() == first {
            at_first_attempt(&pool);
        }
    });
    let done = done.await;
    let (last, _) = *done.attempts.last().unwrap();
    assert_eq!(done.result.unwrap().1.server().id(), pool.servers()[last].id());
    assert!(
        done.ejected.iter().all(Option::is_none),
        "it is no failure of the server"
    );
    assert_eq!(live(&pool), [0, 0]);
    done.attempts
}

const MOVED: [ReportedAttempt; 2] = [(0, Some(ConnectFailure::WentDown)), (1, None)];

#[tokio::test]
async fn a_server_that_loses_its_role_while_it_is_connected_to_is_not_used() {
    let registry = ServerRegistry::default();
    for panic_threshold in [None, Some(100)] {
        let attempts = dialled_while_connecting(&registry, panic_threshold, |pool| {
            pool.servers()[0].record_check(&CheckOutcome::Unfit("an old primary".into()), THRESHOLDS);
        });
        assert_eq!(attempts.await, MOVED, "{panic_threshold:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_disabled_while_it_is_connected_to_is_not_used() {
    let registry = ServerRegistry::default();
    for panic_threshold in [None, Some(100)] {
        let attempts = dialled_while_connecting(&registry, panic_threshold, |pool| {
            let path = ("pool".into(), Arc::clone(&pool.servers()[0].spec().label));
            registry.apply_override(
                &path,
                Override::Disable { close_over: None },
                "uid 0".into(),
                SystemTime::now(),
            );
        });
        assert_eq!(attempts.await, MOVED, "{panic_threshold:?}");
    }
}

#[tokio::test]
async fn a_server_that_goes_down_while_it_is_connected_to_is_used_in_panic() {
    let registry = ServerRegistry::default();
    let fail = |server: &Server| server.record_check(&CheckOutcome::Fail("no answer".into()), THRESHOLDS);
    for (panic_threshold, down, expected) in [
        (None, 1, &MOVED[..]),
        (Some(50), 1, &MOVED[..]),
        (Some(51), 1, &[(0, None)]),
        (Some(50), 2, &[(0, None)]),
    ] {
        let attempts = dialled_while_connecting(&registry, panic_threshold, |pool| {
            for server in &pool.servers()[..down] {
                fail(server);
            }
        });
        assert_eq!(attempts.await, expected, "{panic_threshold:?} {down}");
    }
}
