//! What a pick costs: each policy at 4, 64 and 1,000 servers, by one thread, and by two that pick at the same time; and
//! what it costs when a server has just changed, so that the snapshot of the candidates is rebuilt.
//!
//! Goals, for one thread without other load: `random-two` at most 60 ns at any number of servers; `least-conn` at most
//! 60 ns at 4 and 1 µs at 1,000; `source-hash` at most 10 µs at 1,000; `round-robin` at the same cost at any number of
//! servers, and without a lock between two threads. Each figure includes dropping the lease.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use acequia::addr::{ClientAddr, ServerAddr};
use acequia::pool::{
    ActiveChecks, CheckOutcome, EjectLimits, Member, MemberConfig, Policy, Pool, PoolRules, Server, ServerSpec,
    Thresholds,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tokio::time::Instant;

/// A single result that differs from the one before changes the state.
const THRESHOLDS: Thresholds = Thresholds { rise: 1, fall: 1 };

const POLICIES: [Policy; 4] = [
    Policy::LeastConn,
    Policy::SourceHash,
    Policy::RoundRobin,
    Policy::RandomTwo,
];

/// A pool of `servers` servers whose weights differ, so that no shortcut for equal weights applies.
fn pool(policy: Policy, servers: u16) -> Pool {
    pool_of_weights(policy, servers, |n| 1 + n % 3)
}

fn pool_of_weights(policy: Policy, servers: u16, weight: impl Fn(u16) -> u16) -> Pool {
    let server = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let address = ServerAddr::new(([10, 0, high, low], 443).into());
        let label: Arc<str> = address.to_string().into();
        let spec = ServerSpec {
            identity: Arc::clone(&label),
            label,
            address,
            resolved_from: None,
        };
        let member_config = MemberConfig {
            weight: weight(n),
            ..MemberConfig::default()
        };
        Member::new(Arc::new(Server::new(spec, false)), member_config)
    };
    let second = Duration::from_secs(1);
    let eject = EjectLimits {
        after: 3,
        first: second,
        longest: second,
        percent_max: 50,
        on_reset: false,
    };
    let rules = PoolRules {
        policy,
        eject,
        connect_timeout: second,
        slow_start: None,
        panic_threshold: None,
        queue: None,
        wake: None,
        waits_for_return: false,
    };
    Pool::new("pool".into(), rules, (0..servers).map(server).collect())
}

fn pick(criterion: &mut Criterion) {
    for policy in POLICIES {
        let mut group = criterion.benchmark_group(policy.as_str());
        for (servers, threads) in [4, 64, 1000]
            .into_iter()
            .flat_map(|servers| [(servers, 1), (servers, 2)])
        {
            let pool = pool(policy, servers);
            let id = BenchmarkId::new(servers.to_string(), format!("{threads} threads"));
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|picks| picks_by(&pool, threads, picks));
            });
        }
        group.finish();
    }
}

fn pick_after_a_change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("after a change");
    for (policy, servers) in POLICIES.into_iter().flat_map(|policy| [(policy, 4), (policy, 1000)]) {
        let pool = pool(policy, servers);
        let id = BenchmarkId::new(policy.as_str(), servers);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|picks| changes_and_picks(&pool, picks))
        });
    }
    // With these weights the cycle would need more turns than a cycle may have. It is shortened to about that maximum.
    let pool = pool_of_weights(Policy::RoundRobin, 1000, |n| 1 + (u32::from(n) * 7919 % 256) as u16);
    group.bench_function("round-robin with the longest cycle", |bencher| {
        bencher.iter_custom(|picks| changes_and_picks(&pool, picks));
    });
    group.finish();
}

/// The time of `picks` picks, each after a check that changes the state of a server.
fn changes_and_picks(pool: &Pool, picks: u64) -> Duration {
    let (now, client) = (Instant::now(), ClientAddr::new(([10, 0, 0, 1], 1).into()));
    let changing = &pool.servers()[0];
    changing.set_active_checks(ActiveChecks::None); // forgets the checks of an earlier call
    changing.set_active_checks(ActiveChecks::Health);
    let outcomes = [CheckOutcome::Fail("gone".into()), CheckOutcome::Pass];
    let began = Instant::now();
    for (_, outcome) in (0..picks).zip(outcomes.iter().cycle()) {
        let change = changing.record_check(outcome, THRESHOLDS);
        assert!(change.state.is_some(), "each check changes the state");
        let _ = black_box(pool.pick(client, &[], now));
    }
    began.elapsed()
}

/// The time until each of `threads` threads has made `picks` picks.
fn picks_by(pool: &Pool, threads: u8, picks: u64) -> Duration {
    // All threads meet at the barrier twice: at the start of the picks and at their end.
    let (now, barrier) = (Instant::now(), Barrier::new(usize::from(threads) + 1));
    thread::scope(|scope| {
        for thread in 0..threads {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                for client in 0..picks as u32 {
                    let [_, b, c, d] = client.to_be_bytes();
                    let client = ClientAddr::new(([10 + thread, b, c, d], 1).into());
                    let _ = black_box(pool.pick(client, &[], now));
                }
                barrier.wait();
            });
        }
        barrier.wait();
        let began = Instant::now();
        barrier.wait();
        began.elapsed()
    })
}

criterion_group!(benches, pick, pick_after_a_change);
criterion_main!(benches);
