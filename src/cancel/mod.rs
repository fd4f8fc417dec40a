//! Finds the servers on which a query of PostgreSQL is to be cancelled.
//!
//! A CancelRequest comes on a connection of its own and names the session by a key that its server gave it. The key of
//! a session in the clear, or in TLS that is terminated here, can be read, so that its server is known. The key of a
//! session in TLS that is passed through cannot: a request with an unknown key goes to the servers on which the same
//! client address has sessions whose keys are not known. It goes to at most [`SERVERS_MAX`] of them, and at a limited
//! rate, because a server forks for each request and logs a wrong key.

mod backend;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::addr::ClientHost;
use crate::capacity::{Capacity, CapacityPermit};
use crate::dial::ConnectOptions;
use crate::pool::{Server, ServerId};
use crate::sniff::postgres::CancelKey;
pub use backend::{BACKEND_BYTES_MAX, BackendReader};

/// The most servers to which a request with an unknown key is sent because its client has sessions there whose keys are
/// not known.
pub const SERVERS_MAX: usize = 8;

/// The most requests with an unknown key that a listener sends on in a second.
pub const LISTENER_RATE_MAX: usize = 10;

/// The most requests with an unknown key that a listener sends on in a second for one client address.
pub const CLIENT_RATE_MAX: usize = 2;

/// The time over which both rates are counted.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// How to reach a server that a request is for.
#[derive(Clone, Debug)]
pub struct CancelTarget {
    /// The server.
    pub server: Arc<Server>,
    /// The name of its pool.
    pub pool: Arc<str>,
    /// How its pool connects.
    pub connect: ConnectOptions,
}

/// A client at a listener.
type ListenerClient = (Arc<str>, ClientHost);

/// The open PostgreSQL sessions of the process. It holds at most one entry for each, so that the limit of sessions
/// bounds it.
#[derive(Debug)]
pub struct CancelTable {
    // A blocking mutex: a session takes it twice, for a few lines.
    sessions: Mutex<Sessions>,
    /// The connections that all requests together may have in addition to one for each request.
    connections: Arc<Capacity>,
}

#[derive(Debug, Default)]
struct Sessions {
    by_key: HashMap<CancelKey, KeyedSession>,
    /// The number of the latest [`KeyedSession`].
    last_number: u64,
    by_client: HashMap<ListenerClient, HashMap<ServerId, UnkeyedSessions>>,
    /// The requests with an unknown key that were sent on in the last second, by listener: when, and for which client.
    sent: HashMap<Arc<str>, VecDeque<(Instant, ClientHost)>>,
}

/// A session whose key is known.
#[derive(Debug)]
struct KeyedSession {
    /// Distinguishes this session from a later one with the same key: a restarted server may give the same key again.
    number: u64,
    target: CancelTarget,
}

/// The sessions that a client has on one server, and whose keys are not known.
#[derive(Debug)]
struct UnkeyedSessions {
    target: CancelTarget,
    count: usize,
}

/// The entry of an open session. Dropping this value removes the entry from the table.
#[derive(Debug)]
#[must_use = "dropping the entry removes it"]
pub struct CancelEntry {
    table: Arc<CancelTable>,
    place: EntryPlace,
}

/// Where the entry is in [`Sessions`].
#[derive(Debug)]
enum EntryPlace {
    /// In `by_key`: the key of the session, and the number of its [`KeyedSession`].
    ByKey(CancelKey, u64),
    /// In `by_client`: the client of the session, and the server that the session is on.
    ByClient(ListenerClient, ServerId),
}

impl Default for CancelTable {
    /// No session, and one connection at a time for each request.
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            connections: Capacity::new(Some(0)),
        }
    }
}

impl CancelTable {
    /// Sets how many connections all requests together may have at once, in addition to one for each request. See
    /// [`Capacity::resize`].
    pub fn resize(&self, connections: usize) {
        self.connections.resize(Some(connections));
    }

    /// A permit for a connection of a request; `None`: no permit is free. Then a request may connect only if it has no
    /// other connection.
    #[must_use]
    pub fn try_connect(&self) -> Option<CapacityPermit> {
        self.connections.try_acquire()
    }

    /// Enters a session with this key in the table.
    pub fn enter_key(self: &Arc<Self>, key: CancelKey, target: CancelTarget) -> CancelEntry {
        let mut sessions = self.sessions.lock();
        sessions.last_number += 1;
        let number = sessions.last_number;
        sessions.by_key.insert(key.clone(), KeyedSession { number, target });
        CancelEntry {
            table: Arc::clone(self),
            place: EntryPlace::ByKey(key, number),
        }
    }

    /// Enters a session of this client at this listener in the table. The key of the session is not known.
    pub fn enter_client(
        self: &Arc<Self>,
        listener: &Arc<str>,
        client: ClientHost,
        target: CancelTarget,
    ) -> CancelEntry {
        let (listener_client, server) = ((Arc::clone(listener), client), target.server.id());
        let mut sessions = self.sessions.lock();
        let servers = sessions.by_client.entry(listener_client.clone()).or_default();
        servers
            .entry(server)
            .or_insert(UnkeyedSessions { target, count: 0 })
            .count += 1;
        CancelEntry {
            table: Arc::clone(self),
            place: EntryPlace::ByClient(listener_client, server),
        }
    }

    /// The server of the session with this key.
    #[must_use]
    pub fn server_of(&self, key: &CancelKey) -> Option<CancelTarget> {
        self.sessions
            .lock()
            .by_key
            .get(key)
            .map(|session| session.target.clone())
    }

    /// The servers on which this client of the listener has sessions whose keys are not known: at most [`SERVERS_MAX`],
    /// those with the most sessions first.
    #[must_use]
    pub fn servers_of(&self, listener: &Arc<str>, client: ClientHost) -> Vec<CancelTarget> {
        let sessions = self.sessions.lock();
        let servers = sessions.by_client.get(&(Arc::clone(listener), client));
        let mut servers: Vec<_> = servers.into_iter().flat_map(HashMap::values).collect();
        servers.sort_by_key(|on_server| std::cmp::Reverse(on_server.count));
        servers.truncate(SERVERS_MAX);
        servers.into_iter().map(|on_server| on_server.target.clone()).collect()
    }

    /// Counts a request with an unknown key if it may be sent on now. Returns whether it may.
    #[must_use]
    pub fn admit(&self, listener: &Arc<str>, client: ClientHost, now: Instant) -> bool {
        let mut sessions = self.sessions.lock();
        sessions.sent.retain(|_, sent| {
            while sent
                .front()
                .is_some_and(|(at, _)| now.duration_since(*at) >= RATE_WINDOW)
            {
                sent.pop_front();
            }
            !sent.is_empty()
        });
        let sent = sessions.sent.entry(Arc::clone(listener)).or_default();
        let of_client = sent.iter().filter(|(_, other)| *other == client).count();
        let is_admitted = sent.len() < LISTENER_RATE_MAX && of_client < CLIENT_RATE_MAX;
        if is_admitted {
            sent.push_back((now, client));
        }
        is_admitted
    }
}

impl Drop for CancelEntry {
    fn drop(&mut self) {
        let mut sessions = self.table.sessions.lock();
        match &self.place {
            EntryPlace::ByKey(key, number) => {
                if sessions
                    .by_key
                    .get(key)
                    .is_some_and(|entered| entered.number == *number)
                {
                    sessions.by_key.remove(key);
                }
            }
            EntryPlace::ByClient(listener_client, server) => {
                let Some(servers) = sessions.by_client.get_mut(listener_client) else {
                    return;
                };
                if let Some(on_server) = servers.get_mut(server) {
                    on_server.count -= 1;
                    if on_server.count == 0 {
                        servers.remove(server);
                    }
                }
                if servers.is_empty() {
                    sessions.by_client.remove(listener_client);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
