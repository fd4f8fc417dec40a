//! Clients that come all the time, and servers that die meanwhile.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::book::Book;
use crate::client::{Client, Clients, PATIENCE};
use crate::kinds::{KINDS, choose};
use crate::servers::Server;
use crate::site::{Host, Nature, POOLS, Site};
use crate::support::proxy::Proxy;
use crate::tls::{Identity, connector};

/// Clients a second, where the machine is fast enough.
const RATE: u32 = 200;

/// Clients at once: who is not quick enough to serve them gets fewer.
const AT_ONCE: usize = 400;

/// All who take part.
pub struct Load {
    pub book: Arc<Book>,
    identities: [(&'static str, Identity); 2],
}

/// Where listeners are.
type Doors = HashMap<&'static str, SocketAddr>;

/// What came of it.
pub struct Outcome {
    pub clients: u32,
    pub deaths: u64,
    pub wrong: Vec<String>,
}

impl Load {
    pub fn new() -> Self {
        Self {
            book: Arc::default(),
            identities: [
                ("shop", Identity::of(&["shop.example.com", "*.shop.example.com"])),
                ("web", Identity::of(&["web.example.com", "*.example.org"])),
            ],
        }
    }

    /// Starts the servers, within a runtime.
    pub fn servers(&self, site: &Site) -> Vec<Arc<Server>> {
        let start = |host: &Host| Arc::new(Server::start(host, self.acceptor(host.nature), &self.book));
        site.hosts.iter().map(start).collect()
    }

    fn acceptor(&self, nature: Nature) -> Option<tokio_rustls::TlsAcceptor> {
        let Nature::Tls(pool) = nature else { return None };
        let identity = self.identities.iter().find(|(name, _)| *name == pool);
        identity.map(|(_, identity)| identity.acceptor.clone())
    }

    pub fn clients(&self) -> Arc<Clients> {
        Arc::new(Clients {
            book: Arc::clone(&self.book),
            tls: connector(&self.identities.each_ref().map(|(_, identity)| identity)),
        })
    }

    /// Puts it on for so long, and waits until the last client is done.
    pub fn run(
        &self,
        proxy: &Proxy,
        servers: &[Arc<Server>],
        rng: Rng,
        time: Duration,
    ) -> impl Future<Output = Outcome> + use<> {
        let clients = self.clients();
        let doors = KINDS
            .iter()
            .map(|kind| (kind.listener, proxy.at(kind.listener)))
            .collect();
        run(clients, doors, servers.to_vec(), rng, time)
    }
}

async fn run(clients: Arc<Clients>, doors: Doors, servers: Vec<Arc<Server>>, mut rng: Rng, time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let fate = tokio::spawn(fate(servers, rng.fork(), end));
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
            all.spawn(client(number, &doors, &mut rng).run(Arc::clone(&clients)));
        }
    }
    if timeout(2 * PATIENCE, all.join_all()).await.is_err() {
        wrong.push("clients did not come to their end".to_owned());
    }
    Outcome {
        clients: number,
        deaths: fate.await.expect("servers die quietly"),
        wrong,
    }
}

fn client(number: u32, doors: &Doors, rng: &mut Rng) -> Client {
    let kind = choose(rng);
    let greeted = POOLS
        .iter()
        .any(|(pool, _, nature, _, _)| *pool == kind.listener && *nature == Nature::Greets);
    Client {
        number,
        kind: kind.name,
        greeted,
        script: (kind.script)(rng),
        to: doors[kind.listener],
    }
}

/// Has servers die and return, until then; how many did.
async fn fate(servers: Vec<Arc<Server>>, mut rng: Rng, end: Instant) -> u64 {
    let (mut dying, mut deaths) = (JoinSet::new(), 0);
    let mut mortal: Vec<_> = servers.into_iter().filter(|server| server.is_mortal).collect();
    loop {
        sleep(Duration::from_millis(rng.u64(200..1_500))).await;
        while let Some(back) = dying.try_join_next() {
            mortal.push(back.expect("servers die quietly"));
        }
        if Instant::now() > end {
            break;
        }
        if mortal.is_empty() {
            continue;
        }
        let server = mortal.swap_remove(rng.usize(..mortal.len()));
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
