//! The cost of finding a route: among 10 and 10,000 routes, and among a million names.
//!
//! `few` repeats a thousand random names, like real traffic, most of which is for few names. `many` repeats a quarter
//! of a million random names. In a table of a million names, the parts that `many` reads do not fit the CPU caches, so
//! that `many` measures memory access.

use std::hint::black_box;

use acequia::addr::ClientAddr;
use acequia::name::{NamePattern, Sni};
use acequia::route::{Route, RouteInput, RouteTable, Target, TlsMode};
use acequia::sniff::hello::ProtocolList;
use criterion::{Criterion, criterion_group, criterion_main};

fn name(n: usize) -> String {
    format!("www-{n}.customers.example.com")
}

/// `routes` routes with `names_each` patterns each. The first of every 100 patterns is a wildcard.
fn table(routes: usize, names_each: usize) -> RouteTable<usize> {
    let pattern = |n: usize| match n % 100 {
        0 => format!("*.{}", name(n)),
        _ => name(n),
    };
    let route = |index: usize| Route {
        name: format!("https#{index}").into(),
        sni: (index * names_each..(index + 1) * names_each)
            .map(|n| NamePattern::from_config(&pattern(n)).expect("the name is valid"))
            .collect(),
        alpn: Vec::new(),
        from: Vec::new(),
        tls: TlsMode::Pass,
        database: Vec::new(),
        user: Vec::new(),
        guards: Vec::new(),
        to: Target::Pool(index),
    };
    RouteTable::new((0..routes).map(route).collect(), None)
}

/// `count` random names from a table of `names` names; for a wildcard, a name that it matches.
fn asked(names: usize, count: usize) -> Vec<Sni> {
    let mut random = fastrand::Rng::with_seed(1);
    let one = |n: usize| match n % 100 {
        0 => format!("shop.{}", name(n)),
        _ => name(n),
    };
    let mut draw = || Sni::from_wire(one(random.usize(..names)).as_bytes()).expect("the name is valid");
    (0..count).map(|_| draw()).collect()
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    for (what, routes, names_each) in [
        ("10 routes", 10, 1),
        ("10,000 routes", 10_000, 1),
        ("1,000,000 names of 100 routes", 100, 10_000),
        ("1,000,000 names of as many routes", 1_000_000, 1),
    ] {
        let table = table(routes, names_each);
        for (which, count) in [("few", 1 << 10), ("many", 1 << 18)] {
            let alpn = ProtocolList::default();
            let names = asked(routes * names_each, count);
            let mut next = names.iter().cycle();
            group.bench_function(format!("{what}, {which}"), |bencher| {
                bencher.iter(|| {
                    let client = Some(ClientAddr::new(([192, 0, 2, 1], 1).into()));
                    let input = RouteInput {
                        name: next.next(),
                        alpn: &alpn,
                        client,
                        database: None,
                        user: None,
                    };
                    black_box(table.find(&input));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, find);
criterion_main!(benches);
