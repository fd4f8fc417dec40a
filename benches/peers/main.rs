//! acequia against HAProxy and nginx, in one interleaved run on loopback: `scripts/bench`.
//!
//! What is measured is the proxy's own user and system time per unit of work, and throughput. Load generator, servers
//! and proxies share the machine's cores; ratios within one run mean something, single figures little.

mod load;
mod proxies;

use std::time::Duration;

use load::{Measured, Servers};
use proxies::Proxy;

/// One thing to measure.
struct Workload {
    name: &'static str,
    unit: &'static str,
    run: fn(&Proxy, Duration) -> Measured,
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "64-byte round trips, 16 sessions",
        unit: "round trip",
        run: |p, t| load::round_trips(p, 16, t),
    },
    Workload {
        name: "64-byte round trips, 128 sessions",
        unit: "round trip",
        run: |p, t| load::round_trips(p, 128, t),
    },
    Workload {
        name: "new sessions",
        unit: "session",
        run: |p, t| load::new_sessions(p, 64, t),
    },
    Workload {
        name: "bulk, 1 session",
        unit: "GB",
        run: |p, t| load::bulk(p, 1, t),
    },
    Workload {
        name: "bulk, 8 sessions",
        unit: "GB",
        run: |p, t| load::bulk(p, 8, t),
    },
];

/// Idle sessions held while memory is read.
const IDLE_SESSIONS: usize = 5000;

fn main() {
    // `cargo bench` and `cargo test --benches` pass arguments of their own; ours come by the environment.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let rounds = number("ROUNDS", 5);
    let time = Duration::from_millis(number("MILLISECONDS", 2000) as u64);
    let part = std::env::var("WORKLOAD").unwrap_or_default();
    let servers = Servers::start();
    let proxies = Proxy::start_all(&servers);
    let workloads = WORKLOADS.iter().filter(|workload| workload.name.contains(&part));
    for workload in workloads {
        // The first round warms caches, pools and pipes up.
        let round = |_| proxies.iter().map(|proxy| (workload.run)(proxy, time)).collect();
        let all: Vec<Vec<Measured>> = (0..=rounds).map(round).skip(1).collect();
        println!("\n{} ({rounds} rounds of {time:?}, medians)", workload.name);
        show(workload.unit, &proxies, &all);
    }
    drop(proxies);
    println!("\nresident memory per idle session ({IDLE_SESSIONS} sessions that have exchanged a byte)");
    for proxy in Proxy::start_all(&servers) {
        println!(
            "{:<24}{:>14} bytes",
            proxy.name,
            load::idle_bytes(&proxy, IDLE_SESSIONS)
        );
    }
}

fn number(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
    set.unwrap_or(default)
}

/// A line for each proxy. Ratios are those to the first proxy in the same round, and their median: the machine's speed
/// drifts from round to round.
fn show(unit: &str, proxies: &[Proxy], rounds: &[Vec<Measured>]) {
    println!(
        "{:<24}{:>16}{:>10}{:>18}{:>10}{:>12}",
        "", "rate", "ratio", "CPU each", "ratio", "p99"
    );
    for (p, proxy) in proxies.iter().enumerate() {
        let middle = |figure: fn(&Measured) -> f64| load::median(rounds.iter().map(|round| figure(&round[p])));
        let ratio = |figure: fn(&Measured) -> f64| {
            load::median(rounds.iter().map(|round| figure(&round[p]) / figure(&round[0])))
        };
        let p99 = Duration::from_secs_f64(middle(|measured| measured.p99.as_secs_f64()));
        println!(
            "{:<24}{:>14}/s{:>10.2}{:>18}{:>10.2}{:>12}",
            proxy.name,
            load::rate_text(middle(|measured| measured.rate), unit),
            ratio(|measured| measured.rate),
            load::cpu_text(middle(|measured| measured.cpu_each), unit),
            ratio(|measured| measured.cpu_each),
            if p99.is_zero() {
                String::new()
            } else {
                format!("{p99:.1?}")
            },
        );
    }
}
