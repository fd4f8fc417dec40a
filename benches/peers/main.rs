//! acequia against HAProxy and nginx, in one interleaved run on loopback: `scripts/bench`.
//!
//! What is measured is the proxy's own user and system time per unit of work, and throughput. Load generator, servers
//! and proxies share the machine's cores; ratios within one run mean something, single figures little.

mod load;
mod proxies;

use std::collections::BTreeMap;
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
    let number = |name, default| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let rounds: usize = number("ROUNDS", 5);
    let seconds = Duration::from_millis(number("MILLISECONDS", 2000) as u64);
    let servers = Servers::start();
    let proxies = Proxy::start_all(&servers);
    let part = std::env::var("WORKLOAD").unwrap_or_default();
    let workloads: Vec<&Workload> = WORKLOADS
        .iter()
        .filter(|workload| workload.name.contains(&part))
        .collect();
    let mut results: BTreeMap<(usize, usize), Vec<Measured>> = BTreeMap::new();
    for round in 0..=rounds {
        for (w, workload) in workloads.iter().enumerate() {
            for (p, proxy) in proxies.iter().enumerate() {
                let measured = (workload.run)(proxy, seconds);
                // The first round warms caches, pools and pipes up.
                if round > 0 {
                    results.entry((w, p)).or_default().push(measured);
                }
            }
        }
    }
    for (w, workload) in workloads.iter().enumerate() {
        println!("\n{} ({rounds} rounds of {seconds:?}, medians)", workload.name);
        println!(
            "{:<24}{:>16}{:>10}{:>18}{:>10}{:>12}",
            "", "rate", "ratio", "CPU each", "ratio", "p99"
        );
        let medians: Vec<Measured> = (0..proxies.len())
            .map(|p| Measured::median(&results[&(w, p)]))
            .collect();
        for (proxy, median) in proxies.iter().zip(&medians) {
            println!(
                "{:<24}{:>14}/s{:>10.2}{:>18}{:>10.2}{:>12}",
                proxy.name,
                median.rate_text(workload.unit),
                median.rate / medians[0].rate,
                median.cpu_text(workload.unit),
                median.cpu_each / medians[0].cpu_each,
                median.p99.map_or(String::new(), |p99| format!("{p99:.1?}")),
            );
        }
    }
    println!("\nresident memory per idle session ({IDLE_SESSIONS} sessions that have exchanged a byte)");
    for proxy in Proxy::start_all(&servers) {
        println!(
            "{:<24}{:>14} bytes",
            proxy.name,
            load::idle_bytes(&proxy, IDLE_SESSIONS)
        );
    }
}
