//! The soak test: all kinds of load at once, for a given time. Run it with `scripts/soak`.
//!
//! One acequia process serves clients and servers of every kind, which count the bytes that they send and receive. An
//! operator meanwhile reloads, drains and disables servers, changes their weights, kills sessions and rotates logs. At
//! the end clients, servers, access log and metrics must agree.

#![allow(unreachable_pub, reason = "a program of its own, in several files")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the soak")]

mod access;
mod records;
mod client;
mod cost;
mod drip;
mod header;
mod kinds;
mod load;
mod operator;
mod order;
mod pattern;
mod servers;
mod site;
mod table;
mod tls;
mod verdict;
mod wire;

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, sleep};
use std::time::Duration;

use clap::Parser;
use fastrand::Rng;
use tokio::runtime::{self, Handle};
use tokio::time::Instant;

use cost::Cost;
use load::Load;
use operator::Operator;
use servers::Server;
use site::{Site, Turn};
use support::counts::active_sessions;
use support::proxy::{Proxy, Stopped};
use verdict::Evidence;

/// How long sessions, sockets and servers may take to settle after the load.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(30);

/// At most this many kinds of violations are printed, and at most this many of the last log lines.
const SHOWN_MAX: usize = 30;

/// Puts all kinds of load on acequia at once.
#[derive(Parser)]
struct Arguments {
    /// How long the load lasts.
    #[arg(default_value = "10m", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Seed of all random choices; printed, so that a run can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Instead of the soak, run thousands of slowloris clients (each sends a byte of its hello per second) beside
    /// well-behaved clients. Takes three times the duration.
    #[arg(long)]
    drip: bool,
}

fn main() -> ExitCode {
    let Arguments { duration, seed, drip } = Arguments::parse();
    let testbed = Testbed::start();
    if drip {
        return drip::run(&testbed, duration);
    }
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("soaking for {duration:?}, seed {seed}");
    soak(testbed, &mut Rng::with_seed(seed), duration)
}

/// acequia, its servers, and the load.
struct Testbed {
    site: Site,
    load: Load,
    servers: Vec<Arc<Server>>,
    proxy: Proxy,
    /// Where clients and servers run.
    handle: Handle,
}

impl Testbed {
    fn start() -> Self {
        let (site, load, handle) = (Site::new(), Load::new(), background());
        let entered = handle.enter(); // the servers start on this runtime
        let servers = load.start_servers(&site);
        drop(entered);
        Self {
            proxy: Proxy::start(&site.config(Turn::First)),
            site,
            load,
            servers,
            handle,
        }
    }
}

/// A runtime on a thread of its own, for as long as this process lives.
fn background() -> Handle {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

fn soak(testbed: Testbed, rng: &mut Rng, time: Duration) -> ExitCode {
    let Testbed {
        site,
        load,
        servers,
        proxy,
        handle,
    } = testbed;
    let before = idle_cost(&proxy);
    let (sender, outcomes) = channel();
    let running = load.run(&proxy, &servers, rng.fork(), time);
    handle.spawn(async move { sender.send(running.await) });
    let (operator_work, outcome) = Operator::new(&proxy, &site, rng.fork()).work_until(&outcomes);
    let after = settled_cost(&proxy, &before);
    let metrics = proxy.metrics();
    let Stopped { code, log, .. } = proxy.stop();
    let (lines, broken_lines) = access::read(site.logs.path());
    let evidence = Evidence {
        servers,
        records: load.records.all().clone(),
        lines,
        broken_lines,
        metrics,
        operator_work,
        outcome,
        before,
        after,
        log,
        code,
    };
    table::print(&evidence);
    let violations = evidence.violations();
    if !violations.is_empty() {
        println!("last lines of the diagnostic log:");
        let end = evidence.log.len().saturating_sub(SHOWN_MAX);
        evidence.log[end..].iter().for_each(|line| println!("{line}"));
    }
    report_violations(&violations)
}

/// The cost before the load: the sample with the fewest sockets, because checks and admin connections come and go.
fn idle_cost(proxy: &Proxy) -> Cost {
    let samples = (0..20).map(|_| {
        sleep(Duration::from_millis(25));
        Cost::measure(proxy)
    });
    samples.min_by_key(|cost| cost.sockets).unwrap()
}

/// The cost when everything has settled, or after [`SETTLE_TIME_MAX`].
fn settled_cost(proxy: &Proxy, before: &Cost) -> Cost {
    let end = Instant::now() + SETTLE_TIME_MAX;
    loop {
        let now = Cost::measure(proxy);
        let is_over = active_sessions(proxy) == 0.0 && now.sockets <= before.sockets && now.threads <= before.threads;
        // On a server with a session limit, a place may become free as late as a second after its session has ended.
        let metrics = proxy.metrics();
        let are_all_places_free = metrics.sum("acequia_server_sessions_active", &[]) == 0.0;
        let has_settled = is_over && are_all_places_free && verdict::servers_down(&metrics).is_empty();
        if has_settled || Instant::now() > end {
            return now;
        }
        sleep(Duration::from_millis(100));
    }
}

/// Prints one violation of each kind, at most [`SHOWN_MAX`]: violations with the same text before the first colon are
/// of one kind. Returns a failure if there is a violation.
fn report_violations(violations: &[String]) -> ExitCode {
    let mut kinds = BTreeMap::<&str, Vec<&String>>::new();
    for violation in violations {
        let kind = violation.split(':').next().unwrap_or_default();
        kinds.entry(kind).or_default().push(violation);
    }
    for of_kind in kinds.values().take(SHOWN_MAX) {
        println!("VIOLATION, {} like this: {}", of_kind.len(), of_kind[0]);
    }
    if violations.is_empty() {
        println!("all counts agree");
        return ExitCode::SUCCESS;
    }
    println!("{} violations", violations.len());
    ExitCode::FAILURE
}
