use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;

use super::*;
use crate::addr::ClientAddr;
use crate::pool::Server;

mod slow;

/// How many lookups may run at once: the largest number that [`crate::descriptors`] gives.
const CAPACITY: usize = 128;

const ONE_NAME: &str = r#"servers = ["a.test:7"]"#;

/// A plan with one pool that has these lines.
fn plan(lines: &str) -> Plan {
    let text = format!("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\n{lines}");
    let loaded = crate::config::read("test.toml", &text);
    loaded.unwrap_or_else(|report| panic!("{report}")).plan
}

/// A [`Live`] whose plan has one pool with these lines, and this pool.
fn pool(lines: &str) -> (Live, Arc<LivePool>) {
    let live = Live::new(plan(lines), Vec::new());
    let pool = Arc::clone(live.in_force().pool("p").unwrap());
    (live, pool)
}

/// The addresses of names, for a resolver.
#[derive(Clone, Default)]
struct Zone(Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>);

impl Zone {
    /// Sets the addresses of a name. A name with an empty list does not resolve.
    fn put(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().insert(name.to_owned(), addresses);
    }

    fn resolver(&self) -> Resolver {
        let zone = self.clone();
        Resolver::new(CAPACITY, move |host, port, _| match zone.0.lock().get(host) {
            Some(addresses) if !addresses.is_empty() => {
                Ok(addresses.iter().map(|address| (*address, port).into()).collect())
            }
            _ => Err(io::Error::other("no such name")),
        })
    }
}

/// A pool with names, and the zone that has their addresses.
struct Fixture {
    live: Live,
    pool: Arc<LivePool>,
    names: PoolNames,
    zone: Zone,
}

impl Fixture {
    fn new(lines: &str) -> Self {
        let (live, pool) = pool(lines);
        Self {
            live,
            pool,
            names: PoolNames::default(),
            zone: Zone::default(),
        }
    }

    /// Looks up all names. Returns the labels of the servers.
    async fn resolve(&mut self) -> Vec<Arc<str>> {
        resolve_all(&mut self.names, &self.pool, &self.zone.resolver(), &self.live).await;
        labels(&self.pool)
    }

    fn server(&self, label: &str) -> Arc<Server> {
        let servers = self.pool.servers();
        let found = servers.iter().find(|server| &*server.spec().label == label);
        Arc::clone(found.expect("it is in the pool"))
    }
}

/// Looks up all names, and waits until every lookup has ended or timed out. If a lookup of an earlier call is still
/// under way, no other one begins for its name, but the time until it times out begins anew.
async fn resolve_all(names: &mut PoolNames, pool: &LivePool, resolver: &Resolver, live: &Live) {
    names.adopt(pool);
    let now = Instant::now();
    for state in names.names.values_mut() {
        state.deadline = Some(if state.lookup.is_some() {
            now + LOOKUP_TIMEOUT
        } else {
            now
        });
    }
    let is_unfinished = |state: &NameState| {
        let has_not_begun = state.deadline == Some(now); // the beginning of the lookup sets a later deadline
        let has_timed_out = state.deadline.is_none();
        let is_under_way = state.lookup.is_some() && !has_timed_out;
        has_not_begun || is_under_way
    };
    while names.names.values().any(is_unfinished) {
        names.step(pool, resolver, live).await;
    }
}

fn labels(pool: &LivePool) -> Vec<Arc<str>> {
    let servers = pool.servers();
    servers.iter().map(|server| Arc::clone(&server.spec().label)).collect()
}

#[tokio::test]
async fn each_address_is_a_server_while_the_name_has_it() {
    let mut fixture = Fixture::new(r#"servers = ["10.0.0.9:7", "a.test:7"]"#);
    fixture.zone.put("a.test", &["10.0.0.2", "10.0.0.1"]);
    let before = ["10.0.0.9:7", "a.test:7@10.0.0.1", "a.test:7@10.0.0.2"].map(Arc::from);
    assert_eq!(fixture.resolve().await, before);
    let (fixed, stays) = (fixture.server(&before[0]).id(), fixture.server(&before[2]).id());
    fixture.zone.put("a.test", &["10.0.0.3", "10.0.0.2"]);
    assert_eq!(
        fixture.resolve().await,
        ["10.0.0.9:7", "a.test:7@10.0.0.2", "a.test:7@10.0.0.3"].map(Arc::from)
    );
    assert_eq!(
        (fixture.server(&before[0]).id(), fixture.server(&before[2]).id()),
        (fixed, stays)
    );
}

#[tokio::test]
async fn a_name_that_stops_resolving_keeps_its_last_addresses() {
    let mut fixture = Fixture::new(r#"servers = ["a.test:7", "b.test:7"]"#);
    fixture.zone.put("a.test", &["10.0.0.1"]);
    fixture.zone.put("b.test", &["10.0.0.2"]);
    let before = fixture.resolve().await;
    let id = fixture.server("a.test:7@10.0.0.1").id();
    fixture.zone.put("a.test", &[]);
    for _ in 0..3 {
        assert_eq!(fixture.resolve().await, before);
        assert_eq!(fixture.server("a.test:7@10.0.0.1").id(), id);
    }
    fixture.zone.put("a.test", &["10.0.0.3"]);
    assert_eq!(
        fixture.resolve().await,
        ["a.test:7@10.0.0.3", "b.test:7@10.0.0.2"].map(Arc::from)
    );
}

#[tokio::test]
async fn a_removed_server_is_kept_while_it_has_a_session_and_used_again_if_its_address_comes_back() {
    let mut fixture = Fixture::new(&format!("{ONE_NAME}\nhealth = {{ check = \"off\" }}"));
    fixture.zone.put("a.test", &["10.0.0.1"]);
    fixture.resolve().await;
    let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
    let lease = fixture.pool.pick(client, &[], Instant::now()).unwrap();
    for _ in 0..2 {
        fixture.zone.put("a.test", &["10.0.0.2"]);
        for _ in 0..3 {
            assert_eq!(fixture.resolve().await, ["a.test:7@10.0.0.2".into()]);
        }
        fixture.zone.put("a.test", &["10.0.0.1"]);
        fixture.resolve().await;
        let again = fixture.server("a.test:7@10.0.0.1");
        assert!(Arc::ptr_eq(lease.server(), &again));
        assert_eq!(again.live(), 1);
    }
    fixture.zone.put("a.test", &["10.0.0.2"]);
    fixture.resolve().await;
    let removed = Arc::downgrade(lease.server());
    drop(lease);
    assert_eq!(removed.strong_count(), 0, "expected that only its session kept it");
}

#[tokio::test]
async fn a_name_with_too_many_addresses_uses_the_same_ones_whatever_their_order() {
    let mut fixture = Fixture::new(ONE_NAME);
    let mut all: Vec<String> = (0..=ADDRESSES_MAX)
        .map(|number| format!("10.0.{}.{}", number / 256, number % 256))
        .collect();
    let mut first = None;
    for _ in 0..4 {
        all.rotate_left(100);
        let addresses: Vec<&str> = all.iter().map(String::as_str).collect();
        fixture.zone.put("a.test", &addresses);
        let servers = fixture.resolve().await;
        assert_eq!(servers.len(), ADDRESSES_MAX);
        assert_eq!(*first.get_or_insert_with(|| servers.clone()), servers);
    }
}

#[test]
fn multicast_broadcast_and_unspecified_addresses_are_left_out() {
    let usable = |ips: &[&str]| {
        let ips = ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 7));
        usable_addresses(Ok(ips.collect())).map_err(|reason| reason.to_string())
    };
    let unusable = [
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "ff02::1",
    ];
    let of_mixed = usable(&[&unusable[..], &["127.0.0.1"]].concat()).unwrap();
    assert_eq!(of_mixed, [ServerAddr::new(([127, 0, 0, 1], 7).into())]);
    for ip in unusable {
        let reason = usable(&[ip]).unwrap_err();
        assert!(reason.ends_with(&format!("not of one host, such as {ip}")), "{reason}");
    }
}
