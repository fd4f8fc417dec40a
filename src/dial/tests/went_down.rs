//! Servers that go out of use while a dial connects to them.

use std::time::SystemTime;

use super::*;
use crate::pool::{Override, ServerRegistry};

const THRESHOLDS: Thresholds = Thresholds { rise: 1, fall: 1 };

/// The attempts of a dial in a pool of two servers that are up. `at_first_attempt` is called when the attempt to
/// connect to the first server begins.
async fn dial_attempts(
    registry: &ServerRegistry,
    panic_threshold: Option<u8>,
    at_first_attempt: impl Fn(&Pool) + Sync,
) -> Vec<ReportedAttempt> {
    dial_attempts_after_check(&CheckOutcome::Pass, registry, panic_threshold, at_first_attempt).await
}

/// As [`dial_attempts`], but a check before the dial has had the result `checked` for both servers.
async fn dial_attempts_after_check(
    checked: &CheckOutcome,
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
        server.record_check(checked, THRESHOLDS);
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
        done.ejected_for.iter().all(Option::is_none),
        "it is no failure of the server"
    );
    assert_eq!(live(&pool), [0, 0]);
    done.attempts
}

const FIRST_SERVER_USED: [ReportedAttempt; 1] = [(0, None)];
const SECOND_SERVER_USED: [ReportedAttempt; 2] = [(0, Some(ConnectFailure::WentDown)), (1, None)];

#[tokio::test]
async fn a_server_that_loses_its_role_during_the_connect_is_not_used() {
    let registry = ServerRegistry::default();
    for panic_threshold in [None, Some(100)] {
        let attempts = dial_attempts(&registry, panic_threshold, |pool| {
            pool.servers()[0].record_check(&CheckOutcome::Unfit("an old primary".into()), THRESHOLDS);
        });
        assert_eq!(attempts.await, SECOND_SERVER_USED, "{panic_threshold:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_disabled_during_the_connect_is_not_used() {
    let registry = ServerRegistry::default();
    for panic_threshold in [None, Some(100)] {
        let attempts = dial_attempts(&registry, panic_threshold, |pool| disable_first(&registry, pool));
        assert_eq!(attempts.await, SECOND_SERVER_USED, "{panic_threshold:?}");
    }
}

fn disable_first(registry: &ServerRegistry, pool: &Pool) {
    let path = ("pool".into(), Arc::clone(&pool.servers()[0].spec().label));
    registry.apply_override(
        &path,
        Override::Disable { close_over: None },
        "uid 0".into(),
        SystemTime::now(),
    );
}

#[tokio::test]
async fn a_server_that_panic_mode_picked_is_not_used_if_it_is_disabled_or_loses_its_role_during_the_connect() {
    let registry = ServerRegistry::default();
    let down = CheckOutcome::Fail("no answer".into());
    let attempts = dial_attempts_after_check(&down, &registry, Some(50), |pool| disable_first(&registry, pool));
    assert_eq!(attempts.await, SECOND_SERVER_USED);
    let attempts = dial_attempts_after_check(&down, &registry, Some(50), |pool| {
        pool.servers()[0].record_check(&CheckOutcome::Unfit("an old primary".into()), THRESHOLDS);
    });
    assert_eq!(attempts.await, SECOND_SERVER_USED);
    // A server that panic mode picked is used even if the panic ends during the connect.
    let attempts = dial_attempts_after_check(&down, &registry, Some(50), |pool| {
        pool.servers()[1].record_check(&CheckOutcome::Pass, THRESHOLDS);
    });
    assert_eq!(attempts.await, FIRST_SERVER_USED);
}

#[tokio::test]
async fn a_server_that_goes_down_during_the_connect_is_used_only_in_panic() {
    let registry = ServerRegistry::default();
    let fail = |server: &Server| server.record_check(&CheckOutcome::Fail("no answer".into()), THRESHOLDS);
    // There is a panic if less than `panic_threshold` percent of the servers are up.
    for (panic_threshold, failing, expected) in [
        (None, 1, &SECOND_SERVER_USED[..]),
        (Some(50), 1, &SECOND_SERVER_USED[..]),
        (Some(51), 1, &FIRST_SERVER_USED[..]),
        (Some(50), 2, &FIRST_SERVER_USED[..]),
    ] {
        let attempts = dial_attempts(&registry, panic_threshold, |pool| {
            for server in &pool.servers()[..failing] {
                fail(server);
            }
        });
        assert_eq!(attempts.await, expected, "{panic_threshold:?} {failing}");
    }
}
