//! Servers that are our own listeners: a session of one would open another one, and that the next, until there is no room.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::addr::{ListenAddr, ServerAddr};

/// A listener: its name, and the addresses that it is bound to.
pub type OwnListener = (Arc<str>, Arc<[ListenAddr]>);

/// The listeners that lead to each pool. A pool leaves out servers that are one of these.
// A std mutex: locked at the start, at a reload, and when the servers of a pool change.
#[derive(Debug, Default)]
pub struct OwnListeners(Mutex<OwnState>);

#[derive(Debug, Default)]
struct OwnState {
    by_pool: HashMap<Arc<str>, Vec<OwnListener>>,
    /// What was left out since the listeners were last set, by pool.
    logged: HashSet<(Arc<str>, ServerAddr)>,
}

impl OwnListeners {
    /// Replaces them. Returns those of before.
    pub fn replace(&self, by_pool: HashMap<Arc<str>, Vec<OwnListener>>) -> HashMap<Arc<str>, Vec<OwnListener>> {
        let next = OwnState {
            by_pool,
            logged: HashSet::new(),
        };
        std::mem::replace(&mut *self.lock(), next).by_pool
    }

    /// Those that lead to a pool.
    #[must_use]
    pub fn for_pool(&self, pool: &str) -> PoolListeners {
        let listeners = self.lock().by_pool.get(pool).cloned().unwrap_or_default();
        PoolListeners::new(listeners)
    }

    /// Logs once that a server of a pool is a listener, and so is left out.
    pub fn log_left_out(&self, pool: &Arc<str>, server: ServerAddr, listener: &str) {
        if self.lock().logged.insert((Arc::clone(pool), server)) {
            tracing::warn!(
                %pool,
                %server,
                listener,
                "a server is left out: it is the listener itself, every session would open another one"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, OwnState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listeners that lead to a pool, to be compared with its servers. Not to be kept: the addresses of this machine change.
#[derive(Debug)]
pub struct PoolListeners {
    listeners: Vec<OwnListener>,
    /// The addresses of the interfaces of this machine. A bind does not tell: with `net.ipv4.ip_nonlocal_bind` it succeeds for all.
    local: OnceCell<HashSet<IpAddr>>,
}

impl PoolListeners {
    fn new(listeners: Vec<OwnListener>) -> Self {
        Self {
            listeners,
            local: OnceCell::new(),
        }
    }

    /// Whether they are these.
    #[must_use]
    pub fn is_equal_to(&self, listeners: &[OwnListener]) -> bool {
        self.listeners == listeners
    }

    /// The listener among them that a connection to this server would come to.
    #[must_use]
    pub fn at(&self, server: ServerAddr) -> Option<&Arc<str>> {
        let accepts = |own: &ListenAddr| own.accepts_connections_to(server) || self.is_wildcard_for(*own, server);
        let found = self
            .listeners
            .iter()
            .find(|(_, addresses)| addresses.iter().any(accepts));
        found.map(|(name, _)| name)
    }

    /// Whether a listener at all addresses of this machine accepts connections to this one.
    fn is_wildcard_for(&self, own: ListenAddr, server: ServerAddr) -> bool {
        let (Some(own), Some(server)) = (own.socket(), server.socket()) else {
            return false;
        };
        let ip = server.ip().to_canonical();
        let is_covered = own.ip().is_unspecified() && own.is_ipv4() == ip.is_ipv4() && own.port() == server.port();
        is_covered && self.local.get_or_init(interface_addresses).contains(&ip)
    }
}

/// The addresses of the interfaces of this machine; none if the system does not tell.
fn interface_addresses() -> HashSet<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.iter().map(if_addrs::Interface::ip).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_listener_is_found_only_at_its_addresses() {
        let listen = |address: &str| ListenAddr::new(address.parse().unwrap());
        let listeners = PoolListeners::new(vec![
            ("one".into(), [listen("127.0.0.1:80")].into()),
            ("all".into(), [listen("0.0.0.0:443"), listen("[::]:443")].into()),
        ]);
        let interfaces = [Ipv4Addr::new(198, 51, 100, 7).into()];
        listeners.local.set(interfaces.into()).unwrap();
        for (server, expected) in [
            ("127.0.0.1:80", Some("one")),
            ("127.0.0.2:80", None),
            ("127.0.0.1:81", None),
            ("127.0.0.9:443", Some("all")),
            ("[::1]:443", Some("all")),
            ("198.51.100.7:443", Some("all")),
            ("198.51.100.7:80", None),
            ("192.0.2.1:443", None),
        ] {
            let found = listeners.at(ServerAddr::new(server.parse().unwrap()));
            assert_eq!(found.map(|name| &**name), expected, "{server}");
        }
        assert!(interface_addresses().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}
