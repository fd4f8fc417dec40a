//! The registry of all servers, their overrides, the known roles and the queue of each pool, and our listeners.
//!
//! A server that stays over a reload, or leaves and returns while something holds it, keeps its state. But the role
//! that it had when it left no longer counts. Overrides are kept for servers that do not exist at the moment, too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::live_count::LiveCount;
use super::own_listeners::OwnListeners;
use super::{KnownPrimary, Override, Overrides, PoolQueue, PoolRoles, Server, ServerSpec};
use crate::addr::ServerAddr;

/// The name of a server: its pool and its label, as in `POOL/SERVER` of the commands. Several servers with different
/// addresses or host names may have one name: one after another, and at the same time while sessions hold earlier ones.
pub type ServerPath = (Arc<str>, Arc<str>);

/// How many absent servers (in no pool at the moment) keep their overrides. This bounds the memory where an automation
/// drains every server before removing it.
const ABSENT_MAX: usize = 10_000;

/// Finds every server that a plan or a session holds, and the overrides of servers.
#[derive(Debug, Default)]
pub struct ServerRegistry {
    // A blocking mutex: locked when servers come or go, and to change or read overrides; never by a session.
    entries: Mutex<RegistryEntries>,
    /// By pool, also for pools that are gone. A blocking mutex: locked at the start and at a reload, when a primary
    /// changes, and when an override is applied.
    roles: Mutex<ByPool<PoolRoles>>,
    /// By pool, also for pools that are gone. A blocking mutex: locked at the start, at a reload, and when a server is
    /// new.
    queues: Mutex<ByPool<PoolQueue>>,
    primary_changed: Arc<Notify>,
    changed: watch::Sender<()>,
    own_listeners: OwnListeners,
}

/// Something of each pool that outlives the pool, by the pool's name.
#[derive(Debug)]
struct ByPool<T> {
    pools: HashMap<Arc<str>, Arc<T>>,
    /// With this many entries, those that are of no use any more are removed.
    sweep_at: usize,
}

impl<T> Default for ByPool<T> {
    fn default() -> Self {
        Self {
            pools: HashMap::new(),
            sweep_at: 0,
        }
    }
}

impl<T> ByPool<T> {
    /// `is_remembered` tells whether a value that only this map holds is kept, in case its pool comes back.
    fn get_or_create(
        &mut self,
        pool: &Arc<str>,
        new: impl FnOnce() -> T,
        is_remembered: impl Fn(&T) -> bool,
    ) -> Arc<T> {
        if self.pools.len() >= self.sweep_at {
            self.pools
                .retain(|_, kept| Arc::strong_count(kept) > 1 || is_remembered(kept));
            self.sweep_at = 2 * self.pools.len() + 16; // so that few insertions go through all entries
        }
        Arc::clone(self.pools.entry(Arc::clone(pool)).or_insert_with(|| Arc::new(new())))
    }
}

#[derive(Debug, Default)]
struct RegistryEntries {
    servers: HashMap<ServerPath, Vec<Weak<Server>>>,
    /// The counts of sessions, by pool and address.
    counts: HashMap<(Arc<str>, ServerAddr), Weak<LiveCount>>,
    /// When `servers` or `counts` has this many entries, those of dropped servers are removed.
    sweep_at: usize,
    /// Overrides that change something.
    overrides: HashMap<ServerPath, StoredOverrides>,
    /// The number of override changes so far.
    changes: u64,
}

impl RegistryEntries {
    /// The servers at this path that are still held.
    fn servers_at(&self, path: &ServerPath) -> impl Iterator<Item = Arc<Server>> {
        let named = self.servers.get(path).into_iter().flatten();
        named.filter_map(Weak::upgrade)
    }
}

#[derive(Debug)]
struct StoredOverrides {
    overrides: Overrides,
    /// The number of the change that stored them: the lowest is the oldest.
    change_number: u64,
}

impl ServerRegistry {
    /// A registry without servers, with the primaries that are remembered.
    #[must_use]
    pub fn new(primaries: BTreeMap<Box<str>, KnownPrimary>) -> Self {
        let registry = Self::default();
        let new_roles = |known| Arc::new(PoolRoles::new(Some(known), Arc::clone(&registry.primary_changed)));
        let entry = |(pool, known): (Box<str>, KnownPrimary)| (pool.into(), new_roles(known));
        registry.roles.lock().pools = primaries.into_iter().map(entry).collect();
        registry
    }

    /// Our listeners. A listener that leads to a pool may not be a server of that pool.
    #[must_use]
    pub fn own_listeners(&self) -> &OwnListeners {
        &self.own_listeners
    }

    /// The known roles in a pool. A known primary stays remembered when the pool is gone.
    #[must_use]
    pub fn roles(&self, pool: &Arc<str>) -> Arc<PoolRoles> {
        let new = || PoolRoles::new(None, Arc::clone(&self.primary_changed));
        let has_primary = |roles: &PoolRoles| roles.known_primary().is_some();
        self.roles.lock().get_or_create(pool, new, has_primary)
    }

    /// The queue of a pool. It outlives the pool as long as a session or a plan holds a server of the pool.
    #[must_use]
    pub fn queue(&self, pool: &Arc<str>) -> Arc<PoolQueue> {
        let new = || PoolQueue::new(self.changed.clone());
        self.queues.lock().get_or_create(pool, new, |_| false)
    }

    /// A receiver that is notified by [`Self::notify_change`], and after every change of the servers of a pool, or of
    /// the health, role, ejection or administrative state of a server.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Tells the subscribers that something has changed.
    pub fn notify_change(&self) {
        self.changed.send_replace(());
    }

    /// The primaries to be remembered, by pool.
    #[must_use]
    pub fn known_primaries(&self) -> BTreeMap<Box<str>, KnownPrimary> {
        let roles = self.roles.lock();
        let known = roles
            .pools
            .iter()
            .filter_map(|(pool, roles)| Some(((**pool).into(), roles.known_primary()?)));
        known.collect()
    }

    /// Waits until [`Self::known_primaries`] may have changed since this was last awaited. Only one task may wait for
    /// that.
    pub async fn primary_changed(&self) {
        self.primary_changed.notified().await;
    }

    /// The server with this pool and this specification. If none exists, creates one with the overrides of its name.
    /// A new server does not replace others of its name, because its plan may never be put in force.
    ///
    /// `is_checked` tells whether active checks run for a new server.
    #[must_use]
    pub fn get_or_create(&self, pool: &Arc<str>, spec: ServerSpec, is_checked: bool) -> Arc<Server> {
        let path = (Arc::clone(pool), Arc::clone(&spec.label));
        let address = spec.address;
        let mut entries = self.entries.lock();
        // A server of this name and address has another specification if the configuration has another host name for
        // it, or now has a host name in place of an address.
        let same = entries.servers_at(&path).find(|server| *server.spec() == spec);
        if let Some(server) = same {
            return server;
        }
        if entries.servers.len().max(entries.counts.len()) >= entries.sweep_at {
            let is_held = |server: &Weak<Server>| server.strong_count() > 0;
            entries.servers.retain(|_, named| named.iter().any(is_held));
            entries.counts.retain(|_, count| count.strong_count() > 0);
            entries.sweep_at = 2 * entries.servers.len().max(entries.counts.len()) + 16;
        }
        let server = Server::new(spec, is_checked).with_queue(self.queue(pool));
        // Servers of one pool at one address share a count, whatever their names: the limit is on the sum of sessions.
        let count_at_address = entries.counts.entry((Arc::clone(pool), address)).or_default();
        let server = match count_at_address.upgrade() {
            Some(count) => server.sharing_count(count),
            None => {
                *count_at_address = Arc::downgrade(server.shared_count());
                server
            }
        };
        let server = Arc::new(server);
        if let Some(stored) = entries.overrides.get(&path) {
            server.set_overrides(stored.overrides.clone());
        }
        let named = entries.servers.entry(path).or_default();
        named.retain(|server| server.strong_count() > 0);
        named.push(Arc::downgrade(&server));
        server
    }

    /// Applies an override to all servers of this name, and keeps it for later ones until it is revoked. Returns the
    /// overrides in force after it.
    pub fn apply_override(&self, path: &ServerPath, change: Override, by: Arc<str>, at: SystemTime) -> Overrides {
        let mut entries = self.entries.lock();
        let servers: Vec<Arc<Server>> = entries.servers_at(path).collect();
        let before = entries.overrides.remove(path).map(|stored| stored.overrides);
        let overrides = before.unwrap_or_default().with(change, by, at);
        // Servers that only sessions hold are included: they may come back into a plan.
        for server in servers {
            server.set_overrides(overrides.clone());
        }
        entries.changes += 1;
        if !overrides.is_as_configured() {
            let stored = StoredOverrides {
                overrides: overrides.clone(),
                change_number: entries.changes,
            };
            entries.overrides.insert(path.clone(), stored);
        }
        drop(entries);
        if let Some(roles) = self.roles.lock().pools.get(&path.0) {
            roles.forget_list(); // the next check notes again which servers of the pool are disabled
        }
        self.notify_change(); // `set_overrides` notifies only the pools of a server, and a server may be in none
        overrides
    }

    /// The servers that have overrides, including those that are held only by sessions.
    #[must_use]
    pub fn overridden(&self) -> Vec<Arc<Server>> {
        let entries = self.entries.lock();
        let paths = entries.overrides.keys();
        paths.flat_map(|path| entries.servers_at(path)).collect()
    }

    /// The overrides of servers that are not in `present`, sorted by name.
    #[must_use]
    pub fn absent_overrides(&self, present: &HashSet<ServerPath>) -> Vec<(ServerPath, Overrides)> {
        let entries = self.entries.lock();
        let absent = entries.overrides.iter().filter(|(path, _)| !present.contains(*path));
        let mut absent: Vec<_> = absent
            .map(|(path, stored)| (path.clone(), stored.overrides.clone()))
            .collect();
        absent.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        absent
    }

    /// Whether any override is kept.
    #[must_use]
    pub fn has_overrides(&self) -> bool {
        !self.entries.lock().overrides.is_empty()
    }

    /// Whether there may be more overrides of absent servers than are kept. Then call [`Self::evict_overrides`].
    #[must_use]
    pub fn has_excess_overrides(&self) -> bool {
        self.entries.lock().overrides.len() > ABSENT_MAX
    }

    /// Removes the oldest overrides of servers that are not in `present`, down to the limit. Returns their names,
    /// oldest first.
    pub fn evict_overrides(&self, present: &HashSet<ServerPath>) -> Vec<ServerPath> {
        let mut entries = self.entries.lock();
        let absent = entries.overrides.iter().filter(|(path, _)| !present.contains(*path));
        let mut absent: Vec<_> = absent
            .map(|(path, stored)| (stored.change_number, path.clone()))
            .collect();
        absent.sort_unstable();
        absent.truncate(absent.len().saturating_sub(ABSENT_MAX));
        for (_, path) in &absent {
            entries.overrides.remove(path);
        }
        absent.into_iter().map(|(_, path)| path).collect()
    }
}

#[cfg(test)]
mod tests;
