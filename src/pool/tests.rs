mod queued;
mod queue_order;
mod snapshot;
mod tiers;

use std::time::SystemTime;

use super::ejection::LeaseKind;
use super::health::Availability;
use super::*;
use proptest::prelude::*;

/// A candidate with this identity, weight and number of sessions.
pub(super) fn candidate(index: usize, identity: &str, weight: u16, live: u32) -> Candidate {
    let spec = ServerSpec::for_test(identity, ([10, 0, 0, 1], 443).into());
    Candidate::for_test(index, Server::new(spec, false).with_live(live), weight)
}

/// Candidates with these weights and open sessions, in this order, each with its own identity.
pub(super) fn candidates(servers: &[(u16, u32)]) -> Vec<Candidate> {
    let new_candidate = |(index, (weight, live)): (usize, &(u16, u32))| {
        candidate(index, &format!("10.0.0.{index}:443"), *weight, *live)
    };
    servers.iter().enumerate().map(new_candidate).collect()
}

const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 3 };
const POLICIES: [Policy; 4] = [
    Policy::LeastConn,
    Policy::SourceHash,
    Policy::RoundRobin,
    Policy::RandomTwo,
];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const EJECT: EjectLimits = EjectLimits {
    after: 3,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    percent_max: 50,
    on_reset: false,
};

fn server(n: usize, weight: u16, is_checked: bool) -> Member {
    server_with(
        n,
        MemberConfig {
            weight,
            ..MemberConfig::default()
        },
        is_checked,
    )
}

/// A server with this configuration.
fn server_with(n: usize, member_config: MemberConfig, is_checked: bool) -> Member {
    let spec = ServerSpec::for_test(&format!("s{n}"), ([10, 0, 0, n as u8], 80).into());
    Member::new(Arc::new(Server::new(spec, is_checked)), member_config)
}

/// A pool of servers with these weights. They have checks, but no result yet.
fn unchecked(policy: Policy, weights: &[u16]) -> Pool {
    let servers = weights
        .iter()
        .enumerate()
        .map(|(n, weight)| server(n, *weight, true))
        .collect();
    Pool::new("pool".into(), rules(policy), servers)
}

/// Rules without a queue.
pub(super) fn rules(policy: Policy) -> PoolRules {
    PoolRules {
        policy,
        eject: EJECT,
        connect_timeout: CONNECT_TIMEOUT,
        slow_start: None,
        panic_threshold: None,
        queue: None,
        wake: None,
        waits_for_return: false,
    }
}

/// A pool of servers that are up.
fn up(policy: Policy, weights: &[u16]) -> Pool {
    let pool = unchecked(policy, weights);
    pool.servers().iter().for_each(|server| passes(server, 1));
    pool
}

fn passes(server: &Server, times: u32) {
    for _ in 0..times {
        server.record_check(&CheckOutcome::Pass, THRESHOLDS);
    }
}

fn fails(server: &Server, times: u32) {
    for _ in 0..times {
        server.record_check(&CheckOutcome::Fail("no".into()), THRESHOLDS);
    }
}

fn apply(server: &Server, change: Override) {
    server.set_overrides(server.overrides().with(change, "uid 0".into(), SystemTime::now()));
}

fn client(n: u16) -> ClientAddr {
    let [high, low] = n.to_be_bytes();
    ClientAddr::new(([192, 0, high, low], 40_000).into())
}

/// Fails a connect. Returns the back-off if that ejects the server.
fn fail_connect(pool: &Pool, lease: &Lease, now: Instant) -> Option<Duration> {
    let tried = [lease.server().id()];
    pool.record_failure(lease, &tried, ServerFailure::Connect, now).back_off
}

/// Fails `times` connects to the server. Returns the back-off if the last one ejects it.
fn fail_connects(pool: &Pool, server: &Arc<Server>, times: u32, now: Instant) -> Option<Duration> {
    (0..times)
        .map(|_| fail_connect(pool, &Lease::take(server, LeaseKind::Regular), now))
        .last()
        .flatten()
}

/// The labels of the servers picked for 100 concurrent clients, sorted, each label once.
fn picked(pool: &Pool, now: Instant) -> Vec<Arc<str>> {
    let leases: Vec<_> = (0..100).filter_map(|n| pool.pick(client(n), &[], now).ok()).collect();
    let mut labels: Vec<_> = leases
        .iter()
        .map(|lease| Arc::clone(&lease.server().spec().label))
        .collect();
    labels.sort();
    labels.dedup();
    labels
}

fn labels(of: &[&str]) -> Vec<Arc<str>> {
    of.iter().map(|label| (*label).into()).collect()
}

#[test]
fn a_server_that_is_down_or_of_weight_0_is_never_picked() {
    for policy in POLICIES {
        let pool = up(policy, &[1, 0, 3, 1]);
        fails(&pool.servers()[2], 2);
        assert_eq!(picked(&pool, Instant::now()), labels(&["s0", "s2", "s3"]), "{policy:?}");
        fails(&pool.servers()[2], 1);
        assert_eq!(picked(&pool, Instant::now()), labels(&["s0", "s3"]), "{policy:?}");
    }
    assert!(
        up(Policy::RandomTwo, &[0, 0])
            .pick(client(0), &[], Instant::now())
            .is_err()
    );
    assert!(
        up(Policy::RoundRobin, &[])
            .pick(client(0), &[], Instant::now())
            .is_err()
    );
}

#[test]
fn unchecked_servers_are_used_only_when_no_up_server_is_left() {
    for policy in POLICIES {
        let pool = unchecked(policy, &[1, 1, 1]);
        let now = Instant::now();
        assert_eq!(picked(&pool, now), labels(&["s0", "s1", "s2"]), "{policy:?}");
        let servers = pool.servers();
        passes(&servers[1], 1);
        assert_eq!(picked(&pool, now), labels(&["s1"]), "{policy:?}");
        let next = pool
            .pick(client(0), &[servers[1].id()], now)
            .expect("unchecked servers are left");
        assert_ne!(next.server().id(), servers[1].id());
        fails(&servers[1], 3);
        assert_eq!(picked(&pool, now), labels(&["s0", "s2"]), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchecked_server_with_a_trial_due_is_not_picked_while_another_is_up() {
    let pool = unchecked(Policy::LeastConn, &[1, 1]);
    let servers = pool.servers();
    let now = Instant::now();
    assert!(fail_connects(&pool, &servers[0], 3, now).is_some());
    passes(&servers[1], 1);
    assert_eq!(picked(&pool, now + EJECT.first), labels(&["s1"]));
}

#[test]
fn a_dropped_lease_ends_its_session_even_on_a_removed_server() {
    let pool = up(Policy::LeastConn, &[1, 1]);
    let mut leases: Vec<_> = (0..10)
        .map(|n| pool.pick(client(n), &[], Instant::now()).unwrap())
        .collect();
    assert_eq!(
        pool.servers().iter().map(|server| server.live()).collect::<Vec<_>>(),
        [5, 5]
    );
    pool.replace_servers(Vec::new());
    let first = Arc::clone(leases[0].server());
    let ended = leases.pop().unwrap();
    let last = Arc::clone(ended.server());
    (0..2).for_each(|_| ended.end());
    drop(ended);
    assert_eq!(last.live(), 4, "a lease ends once");
    drop(leases);
    assert_eq!(first.live(), 0, "also on a server that was removed");
}

#[test]
fn consecutive_short_sessions_take_turns_among_equal_servers() {
    let pool = up(Policy::LeastConn, &[1, 1, 1]);
    let order: Vec<_> = (0..6)
        .map(|n| {
            pool.pick(client(n), &[], Instant::now())
                .unwrap()
                .server()
                .spec()
                .label
                .to_string()
        })
        .collect();
    assert_eq!(order, ["s0", "s1", "s2", "s0", "s1", "s2"]);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_permitted_share_of_servers_is_ejected() {
    let pool = up(Policy::LeastConn, &[1, 1, 1, 1, 1, 0]);
    let servers = pool.servers();
    let now = Instant::now();
    assert_eq!(fail_connects(&pool, &servers[0], 2, now), None);
    assert_eq!(fail_connects(&pool, &servers[0], 1, now), Some(EJECT.first));
    assert_eq!(fail_connects(&pool, &servers[1], 3, now), Some(EJECT.first));
    assert_eq!(
        fail_connects(&pool, &servers[2], 30, now),
        None,
        "3 of 5 would be over half"
    );
    assert_eq!(picked(&pool, now), labels(&["s2", "s3", "s4"]));
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_the_last_usable_server_is_never_ejected() {
    let now = Instant::now();
    let alone = up(Policy::LeastConn, &[1, 0]);
    assert_eq!(fail_connects(&alone, &alone.servers()[0], 30, now), None);
    let pool = up(Policy::LeastConn, &[1, 1, 1, 1]);
    let servers = pool.servers();
    fails(&servers[0], 3);
    fails(&servers[1], 3);
    assert!(fail_connects(&pool, &servers[2], 3, now).is_some());
    assert_eq!(fail_connects(&pool, &servers[3], 30, now), None);
    assert_eq!(picked(&pool, now), labels(&["s3"]));
}

#[tokio::test(start_paused = true)]
async fn a_successful_connect_resets_the_failure_count_and_ends_an_ejection() {
    let pool = up(Policy::LeastConn, &[1, 1]);
    let server = &pool.servers()[0];
    let now = Instant::now();
    for _ in 0..10 {
        assert_eq!(fail_connects(&pool, server, 2, now), None);
        assert!(!pool.record_connect(&Lease::take(server, LeaseKind::Regular)));
    }
    assert!(fail_connects(&pool, server, 3, now).is_some());
    assert!(
        pool.record_connect(&Lease::take(server, LeaseKind::Regular)),
        "expected the connect to end the ejection"
    );
    assert!(server.is_up());
}

#[tokio::test(start_paused = true)]
async fn after_the_back_off_one_trial_session_decides_whether_the_ejection_ends() {
    for policy in POLICIES {
        let pool = up(policy, &[1, 1]);
        let servers = pool.servers();
        let now = Instant::now();
        assert!(fail_connects(&pool, &servers[0], 3, now).is_some());
        assert_eq!(picked(&pool, now), labels(&["s1"]), "{policy:?}");
        let due = now + EJECT.first;
        let s1_tried = [servers[1].id()];
        let trial = pool.pick(client(0), &s1_tried, due).expect("the back-off is over");
        assert_eq!(picked(&pool, due), labels(&["s1"]), "the one trial is taken");
        assert_eq!(pool.pick(client(0), &s1_tried, due).unwrap_err(), NoLease::NoServer);
        assert_eq!(fail_connect(&pool, &trial, due), Some(EJECT.first * 2), "{policy:?}");
        let trial = pool
            .pick(client(0), &s1_tried, due + EJECT.first * 2)
            .expect("the longer back-off is over");
        assert!(pool.record_connect(&trial));
        assert_eq!(
            picked(&pool, due + EJECT.first * 2),
            labels(&["s0", "s1"]),
            "{policy:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_trial_whose_result_is_never_reported_is_granted_again() {
    let pool = up(Policy::LeastConn, &[1, 1]);
    let servers = pool.servers();
    let now = Instant::now();
    assert!(fail_connects(&pool, &servers[0], 3, now).is_some());
    let s1_tried = [servers[1].id()];
    let due = now + EJECT.first;
    let _unreported = pool.pick(client(0), &s1_tried, due).unwrap();
    assert!(
        pool.pick(client(0), &s1_tried, due + CONNECT_TIMEOUT - Duration::from_millis(1))
            .is_err()
    );
    assert!(pool.pick(client(0), &s1_tried, due + CONNECT_TIMEOUT).is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_one_of_several_sessions_gets_a_due_trial() {
    let pool = up(Policy::LeastConn, &[1, 1]);
    let servers = pool.servers();
    let now = Instant::now();
    assert!(fail_connects(&pool, &servers[0], 3, now).is_some());
    let due = now + EJECT.first;
    // All sessions look at the same set, before any of them has the trial.
    let set = CandidateSet::new(&servers, pool.rules(), due, |_| false);
    let candidate = set.find(servers[0].id()).expect("its trial is due");
    assert_eq!(
        [(); 3].map(|()| set.admit(candidate, pool.rules(), due)),
        [Some(LeaseKind::Trial), None, None]
    );
}

#[tokio::test(start_paused = true)]
async fn passed_checks_end_an_ejection_and_a_failing_check_delays_the_trial() {
    let pool = up(Policy::LeastConn, &[1, 1]);
    let server = &pool.servers()[0];
    let now = Instant::now();
    passes(server, 10);
    assert!(fail_connects(&pool, server, 3, now).is_some());
    passes(server, 1);
    assert!(server.is_ejected(), "checks passed before the ejection do not count");
    passes(server, 1);
    assert!(server.is_up());
    assert_eq!(
        fail_connects(&pool, server, 3, now),
        Some(EJECT.first * 2),
        "the back-off still doubles"
    );
    fails(server, 1);
    let due = now + EJECT.first * 2;
    assert_eq!(server.availability(due), Availability::Unavailable);
    passes(server, 1);
    assert_eq!(server.availability(due), Availability::TrialDue);
}

#[test]
fn source_hash_picks_in_the_reported_order() {
    let pool = up(Policy::SourceHash, &[1, 2, 3, 0, 5]);
    let now = Instant::now();
    for n in 0..100 {
        let order = pool.in_order(Some(client(n).host()), now);
        assert_eq!(order.len(), 4);
        let mut tried = Vec::new();
        for expected in order {
            let lease = pool.pick(client(n), &tried, now).unwrap();
            assert_eq!(lease.server().id(), expected.id());
            tried.push(expected.id());
        }
    }
    let as_listed: Vec<_> = pool
        .in_order(None, now)
        .iter()
        .map(|server| Arc::clone(&server.spec().label))
        .collect();
    assert_eq!(as_listed, labels(&["s0", "s1", "s2", "s4"]));
}

#[tokio::test(start_paused = true)]
async fn round_robin_retries_are_spread_over_the_other_servers_and_use_no_regular_turn() {
    let pool = up(Policy::RoundRobin, &[1, 1, 1]);
    let (servers, now) = (pool.servers(), Instant::now());
    let mut order = String::new();
    for n in 0..12 {
        let mut lease = pool.pick(client(n), &[], now).unwrap();
        if lease.server().id() == servers[0].id() {
            order.push('x');
            lease = pool.pick(client(n), &[servers[0].id()], now).unwrap();
        }
        order.push_str(&lease.server().spec().label[1..]);
    }
    // `x` is a regular turn of `s0`; the digit after it is the server of the retry.
    assert_eq!(order, "x112x212x112x212");
}

proptest! {
    #[test]
    fn a_session_tries_every_usable_server_once_and_then_gets_none(
        weights_and_states in prop::collection::vec((0u16..=256, 0u32..4), 0..20),
        policy in prop::sample::select(POLICIES.to_vec()),
        n: u16,
    ) {
        let pool = unchecked(policy, &weights_and_states.iter().map(|(weight, _)| *weight).collect::<Vec<_>>());
        let servers = pool.servers();
        for (server, (_, state)) in servers.iter().zip(&weights_and_states) {
            match state {
                0 => {} // unchecked
                1 => fails(server, 1),
                _ => passes(server, 1),
            }
        }
        let now = Instant::now();
        let usable = servers.iter().filter(|server| server.availability(now) != Availability::Unavailable).count();
        let mut tried = Vec::new();
        let mut seen_unchecked = false;
        while let Ok(lease) = pool.pick(client(n), &tried, now) {
            let server = servers.iter().find(|server| server.id() == lease.server().id()).expect("it is in the pool");
            prop_assert!(!tried.contains(&server.id()));
            prop_assert!(server.availability(now) != Availability::Unavailable);
            seen_unchecked |= server.check_state() == CheckState::Unchecked;
            prop_assert!(!seen_unchecked || server.check_state() == CheckState::Unchecked, "an up server was left");
            tried.push(server.id());
        }
        prop_assert_eq!(tried.len(), usable);
    }
}
