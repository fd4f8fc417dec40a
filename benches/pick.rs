//! What a pick costs: each policy at 2, 16, 128 and 1,000 servers.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use acequia::addr::{ClientAddr, ServerAddr};
use acequia::pool::health::EjectLimits;
use acequia::pool::{Allotment, Policy, Pool, PoolRules, Server, ServerSpec};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::time::Instant;

const POLICIES: [Policy; 4] = [
    Policy::LeastConn,
    Policy::SourceHash,
    Policy::RoundRobin,
    Policy::RandomTwo,
];

fn pool(policy: Policy, servers: u16) -> Pool {
    let server = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let address = ServerAddr::new(([10, 0, high, low], 443).into());
        let label: Arc<str> = address.to_string().into();
        // Weights that differ, as nobody may gain from their being equal.
        let spec = ServerSpec {
            identity: Arc::clone(&label),
            label,
            address,
            resolved_from: None,
        };
        let allotment = Allotment {
            weight: 1 + n % 3,
            priority: 0,
        };
        Arc::new(Server::new(spec, allotment, false))
    };
    let second = Duration::from_secs(1);
    let eject = EjectLimits {
        after: 3,
        first: second,
        longest: second,
        percent_max: 50,
    };
    let rules = PoolRules {
        policy,
        eject,
        connect_timeout: second,
        slow_start: None,
        panic_threshold: None,
    };
    Pool::new("pool".into(), rules, (0..servers).map(server).collect())
}

fn pick(criterion: &mut Criterion) {
    for policy in POLICIES {
        let mut group = criterion.benchmark_group(policy.as_str());
        for servers in [2, 16, 128, 1000] {
            let pool = pool(policy, servers);
            let now = Instant::now();
            let mut client: u32 = 0;
            group.throughput(Throughput::Elements(servers.into()));
            group.bench_function(BenchmarkId::from_parameter(servers), |bencher| {
                bencher.iter(|| {
                    client = client.wrapping_add(1);
                    black_box(pool.pick(ClientAddr::new((client.to_be_bytes(), 1).into()), &[], now))
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, pick);
criterion_main!(benches);
