//! The groups whose sessions are to be closed: those of servers that should have none, and those of pools whose
//! sessions should no longer be on the fallback.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::Group;
use crate::account::Ending;
use crate::live::{Cause, Departed, Live, LivePool};
use crate::plan::Sever;
use crate::pool::{Member, Overrides, Server};

/// The groups whose sessions are to be closed, if they have any.
#[derive(Debug, Default)]
pub(super) struct GroupsToClose {
    by_group: HashMap<Group, GroupToClose>,
    /// When the groups may change merely because time passes.
    change_at: Option<Instant>,
}

/// A group that should have no sessions.
#[derive(Debug)]
struct GroupToClose {
    cause: Cause,
    owner: SessionOwner,
}

/// The server or pool that knows whether a group has sessions. It is held weakly: a removed server that returns would
/// keep its old state if something still held it.
#[derive(Debug)]
enum SessionOwner {
    Server(Weak<Server>),
    FallbackOf(Weak<LivePool>),
}

impl GroupsToClose {
    /// Looks at all servers of the pools that are configured to close sessions, at servers that have left their pool,
    /// and at servers that an operator drains or disables. If a server of the last kind, or a renamed one, has another
    /// cause, too, the causes are combined.
    pub(super) fn find(live: &Live, now: Instant) -> Self {
        let mut groups = Self::default();
        let in_force = live.in_force();
        let mut with_departed = Vec::new();
        for pool in in_force.pools.iter() {
            if pool.plan().severing.is_on() {
                groups.add_pool(pool, now);
            }
            let departed = pool.departed();
            groups.add_departed(&departed);
            if !departed.is_empty() {
                with_departed.push((pool, departed));
            }
        }
        groups.add_departed(&live.departed_with_pools());
        for server in live.overridden() {
            if let Some(cause) = drain_cause(&server.overrides()) {
                groups.add_combined(&server, cause);
            }
        }
        for (pool, departed) in with_departed {
            groups.add_renamed(pool, &departed);
        }
        groups
    }

    fn add_pool(&mut self, pool: &Arc<LivePool>, now: Instant) {
        if let Some(cause) = failback_cause(pool, now) {
            let on_fallback = Group::OnFallback(Arc::clone(pool.name()));
            self.add(on_fallback, cause, SessionOwner::FallbackOf(Arc::downgrade(pool)));
        }
        for server in pool.servers().iter() {
            if let Some(cause) = pool.cause(server, now) {
                self.add_server(server, cause);
            }
        }
        self.change_at = self.change_at.into_iter().chain(pool.changes_at(now)).min();
    }

    fn add_departed(&mut self, departed: &[Departed]) {
        for departed in departed {
            if let Some((cause, server)) = departed.cause.zip(departed.server.upgrade()) {
                self.add_server(&server, cause);
            }
        }
    }

    /// Adds servers that left when their name, or that of their pool, changed: their sessions are closed with those of
    /// the server that is now at their address.
    fn add_renamed(&mut self, pool: &LivePool, departed: &[Departed]) {
        let servers = pool.servers();
        let cause_of = |server: &Member| Some(self.by_group.get(&Group::Server(server.id()))?.cause);
        let by_address = servers
            .iter()
            .filter_map(|server| Some((server.spec().address, cause_of(server)?)));
        let by_address: HashMap<_, _> = by_address.collect();
        for former in departed.iter().filter_map(|departed| departed.server.upgrade()) {
            if let Some(cause) = by_address.get(&former.spec().address) {
                self.add_combined(&former, *cause);
            }
        }
    }

    /// Adds a server. If it was added before, its two causes are combined.
    fn add_combined(&mut self, server: &Arc<Server>, cause: Cause) {
        let other = self.by_group.get(&Group::Server(server.id()));
        self.add_server(server, other.map_or(cause, |other| cause.combined_with(other.cause)));
    }

    fn add_server(&mut self, server: &Arc<Server>, cause: Cause) {
        let owner = SessionOwner::Server(Arc::downgrade(server));
        self.add(Group::Server(server.id()), cause, owner);
    }

    fn add(&mut self, group: Group, cause: Cause, owner: SessionOwner) {
        self.by_group.insert(group, GroupToClose { cause, owner });
    }

    /// The groups that have sessions, and why these are to be closed. Removes groups whose server or pool no longer
    /// exists.
    pub(super) fn causes_of_open_sessions(&mut self) -> HashMap<Group, Cause> {
        let mut causes = HashMap::new();
        self.by_group.retain(|group, to_close| {
            let has_sessions = match &to_close.owner {
                SessionOwner::Server(server) => server.upgrade().map(|server| server.live() > 0),
                SessionOwner::FallbackOf(pool) => pool.upgrade().map(|pool| pool.has_fallback_sessions()),
            };
            if has_sessions == Some(true) {
                causes.insert(group.clone(), to_close.cause);
            }
            has_sessions.is_some()
        });
        causes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }

    /// When the groups may change merely because time passes; `None`: never.
    pub(super) fn change_at(&self) -> Option<Instant> {
        self.change_at
    }
}

/// Why sessions of a server with these overrides are to be closed; `None`: they go on.
fn drain_cause(overrides: &Overrides) -> Option<Cause> {
    overrides
        .close_over
        .map(|over| Cause::paced(Ending::ServerDrained, over))
}

/// Why sessions of a pool that are on its fallback are to be closed: the pool is usable again. `None`: they go on.
fn failback_cause(pool: &LivePool, now: Instant) -> Option<Cause> {
    let severing = pool.plan().severing;
    let may_be_on_fallback = || pool.plan().fallback.is_some() || pool.has_fallback_sessions();
    let is_back = || pool.is_usable(now) && !pool.is_on_stand_in(now);
    let closes = severing.on_recover == Sever::Close && may_be_on_fallback() && is_back();
    closes.then_some(Cause::paced(Ending::FailedBack, severing.close_over))
}
