//! The load: clients that connect all the time, and servers that die meanwhile.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::client::{Client, Clients, PATIENCE};
use crate::kinds::{KINDS, choose};
use crate::records::Records;
use crate::servers::Server;
use crate::site::{Host, Nature, POOLS, Site};
use crate::support::proxy::Proxy;
use crate::tls::{Identity, connector};

/// New clients per second, where the machine is fast enough.
const RATE: u32 = 200;

/// Clients at once, at most: a slower machine gets fewer new clients.
const AT_ONCE: usize = 400;

/// The records and certificates that all clients and servers share.
pub struct Load {
    pub records: Arc<Records>,
    /// The certificates of the pools that speak TLS, by the name of the pool.
    identities: [(&'static str, Identity); 2],
}

/// The addresses of listeners, by name.
type Addresses = HashMap<&'static str, SocketAddr>;

/// The outcome of a load.
pub struct Outcome {
    pub clients: u32,
    pub deaths: u64,
    pub wrong: Vec<String>,
}

impl Load {
    pub fn new() -> Self {
        Self {
            records: Arc::default(),
            identities: [
                ("shop", Identity::new(&["shop.example.com", "*.shop.example.com"])),
                ("web", Identity::new(&["web.example.com", "*.example.org"])),
            ],
        }
    }

    /// Starts the servers. Must be called within a runtime.
    pub fn start_servers(&self, site: &Site) -> Vec<Arc<Server>> {
        let start = |host: &Host| Arc::new(Server::start(host, self.acceptor(host.nature), &self.records));
        site.hosts.iter().map(start).collect()
    }

    fn acceptor(&self, nature: Nature) -> Option<tokio_rustls::TlsAcceptor> {
        let Nature::Tls(pool) = nature else { return None };
        let identity = self.identities.iter().find(|(name, _)| *name == pool);
        identity.map(|(_, identity)| identity.acceptor.clone())
    }

    pub fn clients(&self) -> Arc<Clients> {
        Arc::new(Clients {
            records: Arc::clone(&self.records),
            tls: connector(&self.identities.each_ref().map(|(_, identity)| identity)),
        })
    }

    /// Runs the load for this long, and waits until the last client has ended, but at most twice [`PATIENCE`].
    pub fn run(
        &self,
        proxy: &Proxy,
        servers: &[Arc<Server>],
        rng: Rng,
        time: Duration,
    ) -> impl Future<Output = Outcome> + use<> {
        let clients = self.clients();
        let addresses = KINDS
            .iter()
            .map(|kind| (kind.listener, proxy.at(kind.listener)))
            .collect();
        run(clients, addresses, servers.to_vec(), rng, time)
    }
}

async fn run(
    clients: Arc<Clients>,
    addresses: Addresses,
    servers: Vec<Arc<Server>>,
    mut rng: Rng,
    time: Duration,
) -> Outcome {
    let end = Instant::now() + time;
    let deaths = tokio::spawn(kill_servers(servers, rng.fork(), end));
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut all, mut number, mut wrong) = (JoinSet::new(), 0, Vec::new());
    while Instant::now() < end {
        ticks.tick().await;
        while let Some(over) = all.try_join_next() {
            wrong.extend(over.err().map(|error| format!("a client panicked: {error}")));
        }
        if all.len() < AT_ONCE {
            number += 1;
            all.spawn(client(number, &addresses, &mut rng).run(Arc::clone(&clients)));
        }
    }
    if timeout(2 * PATIENCE, all.join_all()).await.is_err() {
        wrong.push("clients have not ended".to_owned());
    }
    Outcome {
        clients: number,
        deaths: deaths.await.expect("the task does not panic"),
        wrong,
    }
}

fn client(number: u32, addresses: &Addresses, rng: &mut Rng) -> Client {
    let kind = choose(rng);
    // The listener of a pool that greets has the name of the pool.
    let is_greeted = POOLS
        .iter()
        .any(|pool| pool.name == kind.listener && pool.nature == Nature::Greets);
    Client {
        number,
        kind: kind.name,
        is_greeted,
        script: (kind.script)(rng),
        to: addresses[kind.listener],
    }
}

/// Lets servers die and come back until `end`; returns the number of deaths.
async fn kill_servers(servers: Vec<Arc<Server>>, mut rng: Rng, end: Instant) -> u64 {
    let (mut dying, mut deaths) = (JoinSet::new(), 0);
    let mut killable: Vec<_> = servers.into_iter().filter(|server| server.is_killable).collect();
    loop {
        sleep(Duration::from_millis(rng.u64(200..1_500))).await;
        while let Some(back) = dying.try_join_next() {
            killable.push(back.expect("the task does not panic"));
        }
        if Instant::now() > end {
            break;
        }
        if killable.is_empty() {
            continue;
        }
        let server = killable.swap_remove(rng.usize(..killable.len()));
        let time = Duration::from_millis(rng.u64(100..3_000));
        deaths += 1;
        dying.spawn(async move {
            server.die(time).await;
            server
        });
    }
    dying.join_all().await;
    deaths
}
