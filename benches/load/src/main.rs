//! Compares acequia with other balancers under the same load on the same machine. Run it with `scripts/bench`.
//!
//! It measures each proxy's own user and system time per unit of work, its rate and its latencies. Clients, servers and
//! proxies share the machine's cores: compare ratios within one run, not absolute figures of different runs. Within a
//! round the proxies take turns, and the first one changes from round to round.

mod chart;
mod clients;
mod goals;
mod hello;
mod pace;
mod proxies;
mod namespace;
mod report;
mod servers;
mod workload;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clients::{Run, Target};
use hello::Hellos;
use namespace::{NetworkNamespace, runtime};
use proxies::{Proxy, ProxyKind, Site};
use report::{Figures, Idle, Report, Row};
use servers::Servers;

/// Measures acequia and other balancers on this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Measured rounds; one more runs before them as a warm-up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each workload is measured with each proxy in each round, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    milliseconds: u64,
    /// Run only workloads whose name contains this.
    #[arg(long, default_value = "")]
    workload: String,
    /// Run only proxies whose name contains one of these, separated by semicolons.
    #[arg(long, value_delimiter = ';', default_value = "")]
    proxy: Vec<String>,
    /// Idle sessions kept open for the measurement of memory; 0 skips it.
    #[arg(long, default_value_t = 5000)]
    idle: usize,
    /// Directory of the proxies' configuration templates.
    #[arg(long, default_value = "benches/proxies")]
    templates: PathBuf,
    /// Directory to search for programs before the system's directories; may be repeated.
    #[arg(long)]
    programs: Vec<PathBuf>,
    /// Another build of acequia, to compare with the program `acequia`.
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<String>,
    /// Network namespaces of clients, proxies and servers, and the addresses of proxies and servers. Default: all of
    /// them in this namespace, at 127.0.0.1.
    #[arg(long, num_args = 5, value_names = ["CLIENTS", "PROXIES", "SERVERS", "PROXIES_IP", "SERVERS_IP"])]
    across: Option<Vec<String>>,
    /// Path without extension: the report is written to .md and .json files, and its chart, if it has one, to a .svg
    /// file.
    #[arg(long)]
    output: Option<PathBuf>,
}

/// The namespaces of clients, proxies and servers, and the addresses of proxies and servers.
struct Network {
    clients: NetworkNamespace,
    proxies: NetworkNamespace,
    servers: NetworkNamespace,
    proxies_ip: IpAddr,
    servers_ip: IpAddr,
}

impl Network {
    fn new(across: Option<&[String]>) -> Self {
        let ip = |text: &String| text.parse().expect("an IP address");
        match across {
            Some([clients, proxies, servers, proxies_ip, servers_ip]) => Self {
                clients: NetworkNamespace(Some(clients.clone())),
                proxies: NetworkNamespace(Some(proxies.clone())),
                servers: NetworkNamespace(Some(servers.clone())),
                proxies_ip: ip(proxies_ip),
                servers_ip: ip(servers_ip),
            },
            _ => Self {
                clients: NetworkNamespace(None),
                proxies: NetworkNamespace(None),
                servers: NetworkNamespace(None),
                proxies_ip: IpAddr::from([127, 0, 0, 1]),
                servers_ip: IpAddr::from([127, 0, 0, 1]),
            },
        }
    }
}

/// A participant: a proxy, or a direct connection between clients and servers.
struct Participant<'a> {
    name: &'static str,
    kind: Option<&'a ProxyKind>,
    proxy: Option<Proxy>,
    target: Target,
}

impl Participant<'_> {
    fn cpu(&self) -> Duration {
        self.proxy.as_ref().map(Proxy::cpu).unwrap_or_default()
    }
}

/// The participant without a proxy: its figures are the limit of the load generator on this machine.
const DIRECT: &str = "no proxy";

fn main() {
    let arguments = Arguments::parse();
    let network = Network::new(arguments.across.as_deref());
    let servers = Servers::start(network.servers.clone(), network.servers_ip);
    network.clients.enter();
    let site = Site {
        programs: &arguments.programs,
        templates: &arguments.templates,
        namespace: &network.proxies,
        ip: network.proxies_ip,
        servers: &servers,
    };
    let all = proxies::all(arguments.beside.as_deref());
    let participants = started(&all, &arguments.proxy, &site);
    let mut report = Report::new(
        arguments.rounds,
        arguments.milliseconds,
        &network.clients,
        versions(&participants, &site),
    );
    let hellos = Hellos::new();
    let workloads = workload::all().into_iter();
    for workload in workloads.filter(|workload| workload.name.contains(&arguments.workload)) {
        let mut rounds = Vec::new();
        for round in 0..=arguments.rounds {
            let mut figures: Vec<_> = participants.iter().map(|_| Figures::default()).collect();
            for turn in 0..participants.len() {
                let which = (turn + round) % participants.len();
                figures[which] = measured(&participants[which], workload.load, &servers, &hellos, &arguments);
            }
            rounds.push(figures);
        }
        rounds.remove(0); // the warm-up of caches, pools and pipes
        let rows = participants.iter().enumerate().map(|(which, participant)| {
            let rounds = rounds.iter().map(|round| round[which].clone());
            Row::new(participant.name, rounds.collect())
        });
        report.add(&workload, rows.collect());
    }
    let kinds: Vec<_> = participants
        .iter()
        .map(|participant| (participant.name, participant.kind))
        .collect();
    drop(participants);
    if arguments.idle > 0 {
        report.idle = idle(&kinds, &site, arguments.idle);
    }
    report.finish(arguments.output.as_deref());
}

fn started<'a>(all: &'a [ProxyKind], name_parts: &[String], site: &Site<'_>) -> Vec<Participant<'a>> {
    let wanted = |name: &str| name_parts.iter().any(|part| name.contains(part.as_str()));
    let mut participants = Vec::new();
    for kind in all.iter().filter(|kind| wanted(kind.name)) {
        if let Some(proxy) = Proxy::start(kind, site) {
            participants.push(Participant {
                name: kind.name,
                kind: Some(kind),
                target: proxy.target,
                proxy: Some(proxy),
            });
        }
    }
    if wanted(DIRECT) {
        participants.push(Participant {
            name: DIRECT,
            kind: None,
            proxy: None,
            target: direct(site.servers),
        });
    }
    participants
}

fn direct(servers: &Servers) -> Target {
    Target {
        echo: servers.echo[0],
        source: servers.source[0],
        sink: servers.sink[0],
        by_name: [servers.echo[0]; 3],
    }
}

/// The version line of each program, once.
fn versions(participants: &[Participant<'_>], site: &Site<'_>) -> Vec<String> {
    let mut versions: Vec<_> = participants
        .iter()
        .filter_map(|participant| Some(proxies::version(participant.kind?, site)))
        .collect();
    versions.dedup();
    versions
}

fn measured(
    participant: &Participant<'_>,
    load: workload::Load,
    servers: &Servers,
    hellos: &Hellos,
    arguments: &Arguments,
) -> Figures {
    let run = Run {
        target: participant.target,
        hellos,
        time: Duration::from_millis(arguments.milliseconds),
        cpu: &|| participant.cpu(),
        discarded: &servers.discarded,
    };
    let measured = runtime().block_on(run.measure(load));
    if let Some(proxy) = &participant.proxy {
        proxy.settle();
    }
    Figures::new(&measured)
}

/// Memory per idle session, with each proxy started anew. The kernel's share covers only the proxy's two sockets: the
/// memory of the same sessions without a proxy is subtracted.
fn idle(kinds: &[(&'static str, Option<&ProxyKind>)], site: &Site<'_>, sessions: usize) -> Vec<Idle> {
    // The memory that the sessions take: bytes of the kernel, and of the process.
    let used = |target: &Target, user_bytes: &dyn Fn() -> u64| {
        let (kernel_before, user_before) = (proxies::kernel_bytes(), user_bytes());
        let then = || {
            (
                proxies::kernel_bytes().saturating_sub(kernel_before),
                user_bytes().saturating_sub(user_before),
            )
        };
        let growth = runtime().block_on(clients::with_idle_sessions(target.echo, sessions, then));
        growth.expect("every session can be opened")
    };
    let (bare, _) = used(&direct(site.servers), &|| 0);
    let proxies = kinds
        .iter()
        .filter_map(|(name, kind)| Some((*name, Proxy::start((*kind)?, site)?)));
    proxies
        .map(|(name, proxy)| {
            let (kernel, user) = used(&proxy.target, &|| proxy.private_bytes());
            let per_session = |bytes: u64| bytes / sessions as u64;
            Idle {
                name,
                user_bytes: per_session(user),
                kernel_bytes: per_session(kernel.saturating_sub(bare)),
            }
        })
        .collect()
}
