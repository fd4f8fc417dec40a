//! All servers there are, so that one that stays, leaves and returns, or is found by a resolver is always the same one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Server, ServerSpec};

/// Who a server is: its pool, its label, its address.
type Key = (Arc<str>, Arc<str>, SocketAddr);

/// Knows every server that anybody holds: a plan, a session.
#[derive(Debug, Default)]
pub struct Roster {
    // A std mutex: only where servers are put together, at the start, at a reload, when a name is resolved.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    servers: HashMap<Key, Weak<Server>>,
    /// As many may be there before those that are gone are looked for.
    room: usize,
}

impl Roster {
    /// The server of a pool that is so called and at that address, as it is if there is one, else a new one, which is
    /// checked or not.
    #[must_use]
    pub fn server(&self, pool: &Arc<str>, spec: ServerSpec, is_checked: bool) -> Arc<Server> {
        let key = (Arc::clone(pool), Arc::clone(&spec.label), spec.address.socket());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known.servers.get(&key).and_then(Weak::upgrade);
        // Its hash identity may differ, where a name now stands for what was an address.
        if let Some(server) = same.filter(|server| server.spec().identity == spec.identity) {
            return server;
        }
        if known.servers.len() >= known.room {
            known.servers.retain(|_, server| server.strong_count() > 0);
            known.room = 2 * known.servers.len() + 16;
        }
        let server = Arc::new(Server::new(spec, is_checked));
        known.servers.insert(key, Arc::downgrade(&server));
        server
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::ServerAddr;

    fn spec(label: &str, port: u16) -> ServerSpec {
        ServerSpec {
            label: label.into(),
            identity: label.into(),
            address: ServerAddr::new(([127, 0, 0, 1], port).into()),
            resolved_from: None,
        }
    }

    #[test]
    fn a_server_is_the_same_while_somebody_holds_it() {
        let roster = Roster::default();
        let (pool, other) = (Arc::<str>::from("p"), Arc::<str>::from("q"));
        let get = |pool, label, port| roster.server(pool, spec(label, port), true);
        let first = get(&pool, "a", 1);
        let id = first.id();
        assert_eq!(get(&pool, "a", 1).id(), id);
        for different in [get(&other, "a", 1), get(&pool, "b", 1), get(&pool, "a", 2)] {
            assert_ne!(different.id(), id);
        }
        drop(first);
        assert_ne!(get(&pool, "a", 1).id(), id, "it was forgotten");
    }

    #[test]
    fn those_that_are_gone_take_no_room() {
        let roster = Roster::default();
        let pool = Arc::<str>::from("p");
        for port in 1..=10_000 {
            drop(roster.server(&pool, spec("a", port), true));
        }
        assert!(roster.known.lock().unwrap().servers.len() <= 32);
    }
}
