//! All servers there are, so that one that stays, leaves and returns, or is found by a resolver is always the same one;
//! and what an operator has said of servers, whether they are there or not.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use super::{Server, ServerSpec, Steer, Steering};

/// What a server is called: its pool and its label, as in `POOL/SERVER` of the commands. Servers at several addresses may
/// have the name one after the other.
pub type ServerPath = (Arc<str>, Arc<str>);

/// Servers that are not there and of which something said is kept. More are an automation that drains whatever goes.
const ABSENT_MAX: usize = 10_000;

/// Knows every server that anybody holds: a plan, a session.
#[derive(Debug, Default)]
pub struct Roster {
    // A std mutex: only where servers are put together (at the start, at a reload, when a name is resolved), and where
    // an operator steers or looks.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    servers: HashMap<ServerPath, Vec<(SocketAddr, Weak<Server>)>>,
    /// As many names may be there before those that are gone are looked for.
    room: usize,
    /// What an operator has said, unless all is as configured.
    said: HashMap<ServerPath, Said>,
    /// Orders so far.
    orders: u64,
}

#[derive(Debug)]
struct Said {
    steering: Steering,
    /// Which order it was.
    number: u64,
}

impl Roster {
    /// The server of a pool that is so called and at that address, as it is if there is one, else a new one, which is
    /// steered as was said of that name, and checked or not.
    #[must_use]
    pub fn server(&self, pool: &Arc<str>, spec: ServerSpec, is_checked: bool) -> Arc<Server> {
        let name = (Arc::clone(pool), Arc::clone(&spec.label));
        let address = spec.address.socket();
        let mut known = self.known();
        let same = known.servers.get(&name).and_then(|there| {
            let (_, server) = there.iter().find(|(at, _)| *at == address)?;
            server.upgrade()
        });
        // Its hash identity may differ, where a name now stands for what was an address.
        if let Some(server) = same.filter(|server| server.spec().identity == spec.identity) {
            return server;
        }
        if known.servers.len() >= known.room {
            let is_held = |(_, server): &(SocketAddr, Weak<Server>)| server.strong_count() > 0;
            known.servers.retain(|_, there| there.iter().any(is_held));
            known.room = 2 * known.servers.len() + 16;
        }
        let server = Arc::new(Server::new(spec, is_checked));
        if let Some(said) = known.said.get(&name) {
            server.steer(said.steering.clone());
        }
        let there = known.servers.entry(name).or_default();
        there.retain(|(at, server)| *at != address && server.strong_count() > 0);
        there.push((address, Arc::downgrade(&server)));
        server
    }

    /// Does what an operator says of a server, and keeps it for when it is there again: until it is taken back. What
    /// holds then.
    pub fn steer(&self, name: &ServerPath, order: Steer, by: Arc<str>, at: SystemTime) -> Steering {
        let mut known = self.known();
        let there: Vec<Arc<Server>> = known.servers.get(name).map_or(Vec::new(), |there| {
            there.iter().filter_map(|(_, server)| server.upgrade()).collect()
        });
        let before = known.said.remove(name).map(|said| said.steering);
        let steering = before.unwrap_or_default().with(order, by, at);
        // Also those that only sessions hold: they may come back.
        for server in there {
            server.steer(steering.clone());
        }
        known.orders += 1;
        if !steering.is_as_configured() {
            let said = Said {
                steering: steering.clone(),
                number: known.orders,
            };
            known.said.insert(name.clone(), said);
        }
        steering
    }

    /// What was said of servers, in the order of their names, except of those that are there.
    #[must_use]
    pub fn absent(&self, there: &HashSet<ServerPath>) -> Vec<(ServerPath, Steering)> {
        let known = self.known();
        let absent = known.said.iter().filter(|(name, _)| !there.contains(*name));
        let mut absent: Vec<_> = absent
            .map(|(name, said)| (name.clone(), said.steering.clone()))
            .collect();
        absent.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        absent
    }

    /// Whether anything is kept.
    #[must_use]
    pub fn has_orders(&self) -> bool {
        !self.known().said.is_empty()
    }

    /// Whether there may be more to remember than will be. Then it is time for [`Self::forget`].
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.known().said.len() > ABSENT_MAX
    }

    /// Forgets what was said first of servers that are not there, as far as these are too many. Whom that concerns.
    pub fn forget(&self, there: &HashSet<ServerPath>) -> Vec<ServerPath> {
        let mut known = self.known();
        let absent = known.said.iter().filter(|(name, _)| !there.contains(*name));
        let mut absent: Vec<_> = absent.map(|(name, said)| (said.number, name.clone())).collect();
        absent.sort_unstable();
        absent.truncate(absent.len().saturating_sub(ABSENT_MAX));
        for (_, name) in &absent {
            known.said.remove(name);
        }
        absent.into_iter().map(|(_, name)| name).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::ServerAddr;
    use crate::pool::Use;

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
            drop(roster.server(&pool, spec(&format!("b{port}"), 1), true));
        }
        let known = roster.known();
        assert!(known.servers.len() <= 32 && known.servers.values().all(|there| there.len() == 1));
    }

    const DRAIN: Steer = Steer::Drain { close_over: None };

    fn steer(roster: &Roster, label: &str, order: Steer) {
        let _ = roster.steer(&("p".into(), label.into()), order, "uid 0".into(), SystemTime::now());
    }

    fn absent(roster: &Roster) -> Vec<String> {
        let absent = roster.absent(&HashSet::new()).into_iter();
        absent.map(|((_, label), _)| label.to_string()).collect()
    }

    #[test]
    fn what_was_said_holds_for_whoever_comes_back_under_the_name() {
        let roster = Roster::default();
        let pool = Arc::<str>::from("p");
        let get = |port| roster.server(&pool, spec("a", port), true);
        drop(get(1));
        steer(&roster, "a", DRAIN);
        steer(&roster, "a", Steer::Weight(Some(3)));
        let (back, moved) = (get(1), get(2));
        for server in [&back, &moved] {
            let steering = server.steering();
            assert_eq!((steering.usage, steering.weight), (Use::Draining, Some(3)));
        }
        steer(&roster, "a", Steer::Enable);
        assert_eq!(absent(&roster), ["a"], "its weight is still set");
        steer(&roster, "a", Steer::Weight(None));
        assert_eq!(
            (absent(&roster).len(), back.is_leaving(), moved.steered_weight()),
            (0, false, None)
        );
    }

    #[test]
    fn what_was_said_first_of_too_many_that_are_not_there_is_forgotten() {
        let roster = Roster::default();
        for number in 0..ABSENT_MAX + 3 {
            steer(&roster, &number.to_string(), DRAIN);
        }
        steer(&roster, "1", DRAIN); // said again
        assert!(roster.is_crowded());
        let there = HashSet::from([("p".into(), "0".into())]);
        let forgotten = roster.forget(&there);
        let labels: Vec<_> = forgotten.iter().map(|(_, label)| &**label).collect();
        assert_eq!(labels, ["2", "3"]);
        assert_eq!(absent(&roster).len(), ABSENT_MAX + 1);
        assert!(roster.forget(&there).is_empty());
    }
}
