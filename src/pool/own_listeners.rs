//! Servers that are our own listeners. If such a listener leads back to the pool of the server, each session would open
//! another session, until a limit is reached.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::addr::{ListenAddr, ServerAddr, UnixPlace};
use crate::local_addresses::LocalAddresses;

/// What has to be known of one of our listeners to find out whether a server is this listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnListener {
    /// Its name.
    pub name: Arc<str>,
    /// The addresses that it is bound to.
    pub addresses: Arc<[ListenAddr]>,
    /// The names of the pools to which it leads, without those to which only routes with `from` lead.
    pub pools: HashSet<Arc<str>>,
}

/// A server that its pool leaves out, because the server is a listener that leads to this pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOutServer {
    /// The name of the server.
    pub label: Arc<str>,
    /// Its address.
    pub address: ServerAddr,
    /// The name of the listener.
    pub listener: Arc<str>,
}

/// Our listeners. A pool leaves out the servers that are listeners leading to it, directly or through other pools that
/// have listeners as servers.
// A blocking mutex: locked at the start, at a reload, and when the servers of a pool or the addresses of this machine
// change.
#[derive(Debug, Default)]
pub struct OwnListeners(Mutex<OwnState>);

#[derive(Debug, Default)]
struct OwnState {
    tables: Arc<ListenerTables>,
    links: Links,
    /// The addresses of the servers that are left out, by pool. Pools without such servers are not in it.
    left_out: HashMap<Arc<str>, HashSet<ServerAddr>>,
    local: Arc<OnceLock<LocalAddresses>>,
}

impl OwnListeners {
    /// No listeners so far. A listener at a wildcard address is found at loopback addresses only (`ListenAddr` knows
    /// them), not at those of interfaces: a configuration may be checked on another machine than the one that uses it.
    #[must_use]
    pub fn ignoring_interfaces() -> Self {
        Self(Mutex::new(OwnState {
            local: Arc::new(LocalAddresses::default().into()),
            ..OwnState::default()
        }))
    }

    /// Replaces the listeners, and forgets the pools that no longer exist.
    pub fn replace(&self, listeners: Vec<OwnListener>, is_pool: impl Fn(&str) -> bool) {
        let tables = Arc::new(ListenerTables::new(listeners));
        let mut state = self.0.lock();
        state.tables = tables;
        state.links.retain_pools(&is_pool);
        state.left_out.retain(|pool, _| is_pool(pool));
    }

    /// Replaces the addresses of this machine. Until the first call, they are read when they are first needed. Returns
    /// `false` if the same addresses were known before.
    pub fn set_local_addresses(&self, addresses: LocalAddresses) -> bool {
        let mut state = self.0.lock();
        let is_new = state.local.get() != Some(&addresses);
        if is_new {
            state.local = Arc::new(addresses.into());
        }
        is_new
    }

    /// The listeners that lead to a pool, directly or through servers of other pools.
    #[must_use]
    pub fn leading_to(&self, pool: &str) -> ListenerLookup {
        self.0.lock().leading_to(pool)
    }

    /// Replaces what is recorded of a pool: which listeners are among its servers.
    pub fn set_links(&self, pool: &Arc<str>, servers: impl Iterator<Item = ServerAddr>) {
        let all = self.0.lock().listeners(None);
        let listeners = servers.filter_map(|server| all.at(server).cloned()).collect();
        self.0.lock().links.set(pool, listeners);
    }

    /// Records which servers of a pool are left out, and logs those that are new.
    pub fn set_left_out(&self, pool: &Arc<str>, servers: &[LeftOutServer]) {
        let addresses: HashSet<ServerAddr> = servers.iter().map(|server| server.address).collect();
        let mut state = self.0.lock();
        let before = match addresses.is_empty() {
            true => state.left_out.remove(pool),
            false => state.left_out.insert(Arc::clone(pool), addresses),
        };
        drop(state);
        let before = before.unwrap_or_default();
        for left_out in servers.iter().filter(|server| !before.contains(&server.address)) {
            tracing::warn!(
                %pool,
                server = %left_out.label,
                listener = %left_out.listener,
                "a server is left out: it is a listener that leads back to the pool, so every session would open another one"
            );
        }
    }

    /// The pools that leave out a server which no longer leads back to them.
    #[must_use]
    pub fn pools_to_readmit(&self) -> Vec<Arc<str>> {
        let state = self.0.lock();
        let is_outdated = |(pool, servers): &(&Arc<str>, &HashSet<ServerAddr>)| {
            let leading = state.leading_to(pool);
            servers.iter().any(|server| leading.at(*server).is_none())
        };
        let outdated = state.left_out.iter().filter(is_outdated);
        outdated.map(|(pool, _)| Arc::clone(pool)).collect()
    }
}

impl OwnState {
    /// Goes backwards from the pool: to the listeners that lead to it, to the pools that have one of these as a server,
    /// and so on.
    fn leading_to(&self, pool: &str) -> ListenerLookup {
        let mut leading = HashSet::new();
        let mut known = HashSet::from([pool]);
        let mut pools = vec![pool];
        while let Some(pool) = pools.pop() {
            for index in self.tables.by_pool.get(pool).into_iter().flatten() {
                if leading.insert(*index) {
                    let with_listener = self.links.pools_of(&self.tables.listeners[*index].name);
                    pools.extend(with_listener.filter(|pool| known.insert(pool)));
                }
            }
        }
        self.listeners(Some(leading))
    }

    /// The listeners with these indices; `None`: all.
    fn listeners(&self, only: Option<HashSet<usize>>) -> ListenerLookup {
        ListenerLookup {
            tables: Arc::clone(&self.tables),
            only,
            local: Arc::clone(&self.local),
        }
    }
}

/// Our listeners, with tables to find them: with 10,000 pools and as many listeners, a reload must not go through all
/// listeners for each pool. An index is a position in `listeners`.
#[derive(Debug, Default)]
struct ListenerTables {
    listeners: Vec<OwnListener>,
    /// The indices of the listeners that lead directly to a pool, by pool.
    by_pool: HashMap<Arc<str>, Vec<usize>>,
    /// The indices of the listeners that have an address with a port, by port, in the order of `listeners`.
    by_port: HashMap<u16, Vec<usize>>,
    /// The indices of the listeners at Unix sockets, by the [`UnixPlace`]s of their paths when this table was built.
    by_place: HashMap<UnixPlace, Vec<usize>>,
}

impl ListenerTables {
    fn new(listeners: Vec<OwnListener>) -> Self {
        let mut new = Self::default();
        for (index, listener) in listeners.iter().enumerate() {
            for pool in &listener.pools {
                new.by_pool.entry(Arc::clone(pool)).or_default().push(index);
            }
            let ports = listener.addresses.iter().filter_map(|address| address.port());
            for port in ports.collect::<HashSet<_>>() {
                new.by_port.entry(port).or_default().push(index);
            }
            for path in listener.addresses.iter().filter_map(ListenAddr::unix) {
                new.by_place.entry(path.place()).or_default().push(index);
            }
        }
        Self { listeners, ..new }
    }

    /// The indices of the listeners at the port of this server, or at its Unix socket. A listener at the port may have
    /// another IP address.
    fn candidates(&self, server: ServerAddr) -> &[usize] {
        let indices = match (server.port(), server.unix()) {
            (Some(port), _) => self.by_port.get(&port), // nearly always there are none
            // `place` makes system calls.
            (None, Some(path)) if !self.by_place.is_empty() => self.by_place.get(&path.place()),
            (None, _) => None,
        };
        indices.map_or(&[], Vec::as_slice)
    }
}

/// The listeners among the servers of pools, by name. Pools and listeners without a link are not in it.
#[derive(Debug, Default)]
struct Links {
    /// The listeners among the servers of a pool, by pool.
    listeners: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// The pools that have a listener as a server, by listener.
    pools: HashMap<Arc<str>, HashSet<Arc<str>>>,
}

impl Links {
    /// The pools that have this listener as a server.
    fn pools_of(&self, listener: &str) -> impl Iterator<Item = &str> {
        self.pools.get(listener).into_iter().flatten().map(|pool| &**pool)
    }

    /// Replaces the listeners among the servers of a pool.
    fn set(&mut self, pool: &Arc<str>, listeners: HashSet<Arc<str>>) {
        self.remove(pool);
        for listener in &listeners {
            let pools = self.pools.entry(Arc::clone(listener)).or_default();
            pools.insert(Arc::clone(pool));
        }
        if !listeners.is_empty() {
            self.listeners.insert(Arc::clone(pool), listeners);
        }
    }

    fn remove(&mut self, pool: &str) {
        for listener in self.listeners.remove(pool).into_iter().flatten() {
            if let Entry::Occupied(mut pools) = self.pools.entry(listener) {
                pools.get_mut().remove(pool);
                if pools.get().is_empty() {
                    pools.remove();
                }
            }
        }
    }

    fn retain_pools(&mut self, is_pool: impl Fn(&str) -> bool) {
        let gone = self.listeners.keys().filter(|pool| !is_pool(pool));
        for pool in gone.cloned().collect::<Vec<_>>() {
            self.remove(&pool);
        }
    }
}

/// Listeners of ours, with which servers are compared. Not to be kept: the addresses of this machine change.
#[derive(Debug)]
pub struct ListenerLookup {
    tables: Arc<ListenerTables>,
    /// The indices of these listeners; `None`: all.
    only: Option<HashSet<usize>>,
    local: Arc<OnceLock<LocalAddresses>>,
}

impl ListenerLookup {
    /// The name of the listener that would accept a connection to this server.
    #[must_use]
    pub fn at(&self, server: ServerAddr) -> Option<&Arc<str>> {
        let is_included = |index: &&usize| self.only.as_ref().is_none_or(|only| only.contains(index));
        let accepts = |own: &ListenAddr| own.accepts_connections_to(server) || self.is_wildcard_for(*own, server);
        let candidates = self.tables.candidates(server).iter().filter(is_included);
        let mut listeners = candidates.map(|index| &self.tables.listeners[*index]);
        let is_unix = server.unix().is_some();
        let found = listeners.find(|listener| is_unix || listener.addresses.iter().any(accepts))?;
        Some(&found.name)
    }

    /// Whether `own` is a wildcard address, and a listener there accepts connections to this server.
    fn is_wildcard_for(&self, own: ListenAddr, server: ServerAddr) -> bool {
        let (Some(own), Some(server)) = (own.socket(), server.socket()) else {
            return false;
        };
        let ip = server.ip().to_canonical();
        // An IPv6 listener accepts no IPv4 connections (`IPV6_V6ONLY`).
        let is_covered = own.ip().is_unspecified() && own.is_ipv4() == ip.is_ipv4() && own.port() == server.port();
        is_covered && self.is_local(ip)
    }

    /// Whether this is an address of this machine. `false` as long as the addresses of the machine cannot be read.
    fn is_local(&self, ip: IpAddr) -> bool {
        if self.local.get().is_none()
            && let Ok(read) = LocalAddresses::read()
        {
            let _ = self.local.set(read); // another thread may have read them, too
        }
        self.local.get().is_some_and(|local| local.contains(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::UnixPath;

    fn listener(name: &str, addresses: &[&str], pools: &[&str]) -> OwnListener {
        let listen = |address: &&str| ListenAddr::new(address.parse().unwrap());
        OwnListener {
            name: name.into(),
            addresses: addresses.iter().map(listen).collect(),
            pools: pools.iter().map(|pool| Arc::from(*pool)).collect(),
        }
    }

    fn server(address: &str) -> ServerAddr {
        ServerAddr::new(address.parse().unwrap())
    }

    #[test]
    fn a_listener_is_found_at_its_addresses_and_no_others() {
        let own = OwnListeners::default();
        let listeners = [
            listener("one", &["127.0.0.1:80"], &[]),
            listener("all", &["0.0.0.0:443", "[::]:443"], &[]),
        ];
        own.replace(listeners.into(), |_| true);
        let local = ["127.0.0.0/8", "::1/128", "198.51.100.7/32", "10.9.0.0/24"];
        let local: LocalAddresses = local.into_iter().map(|network| network.parse().unwrap()).collect();
        assert!(own.set_local_addresses(local), "none were known");
        let listeners = own.0.lock().listeners(None);
        for (address, expected) in [
            ("127.0.0.1:80", Some("one")),
            ("127.0.0.2:80", None),
            ("127.0.0.1:81", None),
            ("127.0.0.9:443", Some("all")),
            ("[::1]:443", Some("all")),
            ("198.51.100.7:443", Some("all")),
            ("198.51.100.7:80", None),
            ("192.0.2.1:443", None),
            ("10.9.0.77:443", Some("all")),
            ("10.9.1.77:443", None),
        ] {
            let found = listeners.at(server(address));
            assert_eq!(found.map(|name| &**name), expected, "{address}");
        }
    }

    #[test]
    fn a_listener_at_a_unix_socket_is_found_by_all_its_paths() {
        let directory = tempfile::tempdir().unwrap();
        let path = |rest: &str| UnixPath::new(&format!("{}/{rest}", directory.path().to_str().unwrap())).unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        std::os::unix::fs::symlink("run", directory.path().join("link")).unwrap();
        let listener = |name: &str, path| OwnListener {
            addresses: [ListenAddr::from_unix(path)].into(),
            ..listener(name, &[], &[])
        };
        let own = OwnListeners::default();
        own.replace(
            vec![listener("a", path("run/a")), listener("b", path("link/b"))],
            |_| true,
        );
        let listeners = own.0.lock().listeners(None);
        for (rest, expected) in [
            ("link/a", Some("a")),
            ("run/b", Some("b")),
            ("run/c", None),
            ("a", None),
        ] {
            let found = listeners.at(ServerAddr::from_unix(path(rest)));
            assert_eq!(found.map(|name| &**name), expected, "{rest}");
        }
    }

    #[test]
    fn listeners_lead_to_a_pool_also_through_servers_that_are_listeners() {
        let own = OwnListeners::default();
        let listeners = [
            listener("a", &["127.0.0.1:1"], &["a"]),
            listener("b", &["127.0.0.1:2"], &["b"]),
            listener("c", &["127.0.0.1:3"], &["c", "b"]),
        ];
        own.replace(listeners.into(), |_| true);
        let at = |pool: &str, address: &str| own.leading_to(pool).at(server(address)).map(|name| name.to_string());
        assert_eq!(at("a", "127.0.0.1:1").as_deref(), Some("a"));
        assert_eq!(at("a", "127.0.0.1:2"), None);
        own.set_links(&"a".into(), [server("127.0.0.1:2"), server("10.0.0.1:2")].into_iter());
        assert_eq!(at("b", "127.0.0.1:1").as_deref(), Some("a"), "through pool a");
        assert_eq!(at("c", "127.0.0.1:1"), None);
        own.set_links(&"b".into(), [server("127.0.0.1:3")].into_iter()); // a circle: the search ends
        assert_eq!(at("c", "127.0.0.1:1").as_deref(), Some("a"));
        own.set_links(&"a".into(), [server("10.0.0.1:2")].into_iter());
        assert_eq!(at("b", "127.0.0.1:1"), None);
    }

    #[test]
    fn a_server_that_no_longer_leads_back_is_to_be_readmitted_unless_its_pool_is_gone() {
        let own = OwnListeners::default();
        let left_out = LeftOutServer {
            label: "a".into(),
            address: server("127.0.0.1:1"),
            listener: "a".into(),
        };
        own.set_left_out(&"b".into(), &[left_out]);
        assert_eq!(own.pools_to_readmit(), ["b".into()]);
        own.replace(Vec::new(), |pool| pool != "b");
        assert!(own.pools_to_readmit().is_empty());
    }
}
