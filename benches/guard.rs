//! The cost of a guard: a set of 100,000 networks is built, an address is looked up in it, and sessions begin and end
//! under all limits of sessions and rates (on one thread, then on two).

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use acequia::addr::ClientAddr;
use acequia::guard::{Guard, GuardRules, NetworkSet, Rate, RefuseWith, SourceBits};
use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use tokio::time::Instant;

const NETWORKS: usize = 100_000;

fn random_networks() -> Vec<IpNet> {
    let mut random = fastrand::Rng::with_seed(1);
    let network = |_| match random.bool() {
        true => IpNet::new(IpAddr::from(random.u32(..).to_be_bytes()), random.u8(16..=32)),
        false => IpNet::new(IpAddr::from(random.u128(..).to_be_bytes()), random.u8(32..=64)),
    };
    (0..NETWORKS)
        .map(network)
        .map(|network| network.expect("the length is valid").trunc())
        .collect()
}

fn addresses(count: usize) -> Vec<IpAddr> {
    let mut random = fastrand::Rng::with_seed(2);
    (0..count)
        .map(|_| match random.bool() {
            true => IpAddr::from(random.u32(..).to_be_bytes()),
            false => IpAddr::from(random.u128(..).to_be_bytes()),
        })
        .collect()
}

fn networks(criterion: &mut Criterion) {
    let networks = random_networks();
    let set: NetworkSet = networks.iter().copied().collect();
    let addresses = addresses(1 << 16);
    let mut next = addresses.iter().cycle();
    criterion.bench_function("look up an address in 100,000 networks", |bencher| {
        bencher.iter(|| set.contains(black_box(*next.next().expect("it is endless"))));
    });
    criterion.bench_function("build a set of 100,000 networks", |bencher| {
        bencher.iter(|| black_box(&networks).iter().copied().collect::<NetworkSet>());
    });
}

/// A guard with all limits of sessions and rates, none of which is reached.
fn guard() -> Arc<Guard> {
    let rate = |count| Some(Rate::new(count, Duration::from_secs(1), count));
    let rules = GuardRules {
        allow: None,
        deny: NetworkSet::default(),
        sessions: Some(1 << 20),
        sessions_per_source: Some(1 << 20),
        rate: rate(1_000_000_000),
        rate_per_source: rate(1_000_000_000),
        bandwidth: None,
        bandwidth_per_session: None,
        by: SourceBits::default(),
        sources_max: 100_000,
        report_only: false,
        refuse_with: RefuseWith::Reset,
    };
    Arc::new(Guard::new("guard".into(), rules))
}

fn sessions(criterion: &mut Criterion) {
    let addresses: Vec<_> = addresses(1 << 16)
        .into_iter()
        .map(|ip| ClientAddr::new((ip, 1).into()))
        .collect();
    for threads in [1, 2] {
        criterion.bench_function(&format!("begin and end a session, threads: {threads}"), |bencher| {
            let guard = guard();
            bencher.iter_custom(|count| {
                let began = Instant::now();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let (guard, addresses) = (&guard, &addresses);
                        scope.spawn(move || {
                            let mut clients = addresses.iter().cycle().skip(thread * 1_000);
                            for _ in 0..count {
                                let client = *clients.next().expect("it is endless");
                                drop(black_box(guard.admit(client, Instant::now())));
                            }
                        });
                    }
                });
                began.elapsed()
            });
        });
    }
}

criterion_group!(benches, networks, sessions);
criterion_main!(benches);
