//! Routes that servers announce for themselves, and how they become part of a plan.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::{
    Announcement, AnnouncementRefusal, ListenerPlan, Plan, PoolId, PoolPlan, RefusedAnnouncement, ServerEntry,
};
use crate::name::{NamePattern, ServerName, Sni};
use crate::route::{Route, Target, TlsMode};
use crate::text::{NAME_BYTES_MAX, Reason, is_name};

/// The most names that one server may announce, so that it cannot use up [`LISTENER_NAMES_MAX`] alone.
const SERVER_NAMES_MAX: usize = 100;

/// The most names that are announced at one listener: each name has a pool, with about 120 series of metrics.
const LISTENER_NAMES_MAX: usize = 1000;

/// `announce` of a listener: who may announce routes at it.
#[derive(Clone, Debug)]
pub struct AnnouncePlan {
    /// The Unix socket of the Docker engine whose containers may announce routes.
    pub socket: Arc<Path>,
    /// The containers may announce only names that match one of these patterns. Never empty.
    pub names: Vec<NamePattern>,
    /// What happens to the TLS of the clients of announced routes.
    pub tls: TlsMode,
    /// The template of the pools of announced routes; only the name and the servers differ.
    pub pool: Arc<PoolPlan>,
}

/// The servers that announce one name at one listener.
struct AnnouncedPool {
    /// The group (label `acequia.pool`) of the oldest server. The other servers must have the same group.
    group: Option<Box<str>>,
    /// The name of the oldest server.
    oldest: Arc<str>,
    servers: Vec<ServerEntry>,
}

/// The index of a listener, and a server name.
type RouteKey = (usize, ServerName);

/// The announcements that are admitted.
#[derive(Default)]
struct Admitted {
    pools: BTreeMap<RouteKey, AnnouncedPool>,
    /// The number of admitted names of each listener, by its index.
    name_counts_by_listener: HashMap<usize, usize>,
    /// The number of admitted names of each server, by the name of the server.
    name_counts_by_server: HashMap<Arc<str>, usize>,
}

impl Admitted {
    /// Adds a server to the pool of a name that it may announce.
    fn add(
        &mut self,
        key: RouteKey,
        announcement: &Announcement,
        server: ServerEntry,
    ) -> Result<(), (AnnouncementRefusal, Reason)> {
        let Announcement { from, group, .. } = announcement;
        let too_many = |who, max| {
            let reason = format!("{who} has {max} names already, and may not have more");
            (AnnouncementRefusal::TooMany, Reason::from(reason))
        };
        let server_name_count = self.name_counts_by_server.entry(Arc::clone(from)).or_default();
        if *server_name_count == SERVER_NAMES_MAX {
            return Err(too_many("it", SERVER_NAMES_MAX));
        }
        let listener_name_count = self.name_counts_by_listener.entry(key.0).or_default();
        let pool = match self.pools.entry(key) {
            Entry::Occupied(pool) => pool.into_mut(),
            Entry::Vacant(_) if *listener_name_count == LISTENER_NAMES_MAX => {
                return Err(too_many("the listener", LISTENER_NAMES_MAX));
            }
            Entry::Vacant(free) => {
                *listener_name_count += 1;
                free.insert(AnnouncedPool {
                    group: group.clone(),
                    oldest: Arc::clone(from),
                    servers: Vec::new(),
                })
            }
        };
        if pool.group != *group {
            let reason = format!(
                "`{}`, which is older, announces the name with another `acequia.pool`",
                pool.oldest
            );
            return Err((AnnouncementRefusal::Taken, Reason::from(reason)));
        }
        *server_name_count += 1;
        pool.servers.push(server);
        Ok(())
    }
}

impl Plan {
    /// The engine whose containers may announce routes; `None`: no listener accepts any.
    #[must_use]
    pub fn announcing_engine(&self) -> Option<&Arc<Path>> {
        let mut announces = self.listeners.iter().filter_map(|listener| listener.announce.as_ref());
        announces.next().map(|announce| &announce.socket) // the same for all listeners
    }

    /// This plan plus a route and a pool for each announced name. This plan must not have announced routes already. If
    /// servers of different groups announce one name at a listener, the group of the oldest server that is not refused
    /// for another reason gets the name, and the other groups are refused.
    #[must_use]
    pub fn with_announced(&self, announcements: &[Announcement]) -> Self {
        let mut in_order: Vec<&Announcement> = announcements.iter().collect();
        in_order.sort_by_key(|announcement| (announcement.created, &announcement.from));
        let by_name = |(index, listener): (usize, &Arc<ListenerPlan>)| (Arc::clone(&listener.name), index);
        let indexes: HashMap<Arc<str>, usize> = self.listeners.iter().enumerate().map(by_name).collect();
        let mut admitted = Admitted::default();
        let mut refused = Vec::new();
        for announcement in in_order {
            let index = indexes.get(&*announcement.listener).copied();
            if let Err((refusal, reason)) = self.admit(announcement, index, &mut admitted) {
                refused.push(RefusedAnnouncement {
                    from: Arc::clone(&announcement.from),
                    listener: Reason::new(&announcement.listener),
                    sni: Reason::new(&announcement.sni),
                    refusal,
                    reason,
                });
            }
        }
        Self {
            refused_announcements: refused,
            ..self.with_pools(admitted.pools)
        }
    }

    /// Adds the server of an announcement to the pool of the announced name, or says why not. `index` is that of the
    /// listener that the announcement names; `None`: there is no such listener.
    fn admit(
        &self,
        announcement: &Announcement,
        index: Option<usize>,
        admitted: &mut Admitted,
    ) -> Result<(), (AnnouncementRefusal, Reason)> {
        let Announcement { sni, .. } = announcement;
        let no_listener = || (AnnouncementRefusal::NoListener, "there is no such listener".into());
        let index = index.ok_or_else(no_listener)?;
        let listener = &self.listeners[index];
        let invalid = |reason| (AnnouncementRefusal::InvalidName, Reason::from(reason));
        let name = ServerName::from_config(sni).map_err(|error| invalid(error.to_string()))?;
        let not_allowed = |reason| (AnnouncementRefusal::NotAllowed, reason);
        check_allowed(listener, &name).map_err(not_allowed)?;
        // Both parts have only valid characters, so only the length can be wrong.
        if !is_name(&pool_name(listener, &name)) {
            let what = "the name of its pool, LISTENER:NAME, would be longer than";
            return Err(invalid(format!("{what} {NAME_BYTES_MAX} bytes")));
        }
        let taken = |reason| (AnnouncementRefusal::Taken, reason);
        self.check_free(listener, &name).map_err(taken)?;
        let no_server = |reason| (AnnouncementRefusal::NoServer, reason);
        let server = announcement.server.clone().map_err(no_server)?;
        if is_address_of(listener, &server) {
            return Err(no_server("its address is that of the listener".into()));
        }
        admitted.add((index, name), announcement, server)
    }

    /// Checks that the configuration itself has no route for this name at the listener, and that the name of the
    /// announced pool and route ([`pool_name`]) is free.
    fn check_free(&self, listener: &ListenerPlan, name: &ServerName) -> Result<(), Reason> {
        if let Some(route) = listener.routes.route_of(name) {
            return Err(format!("route `{}` of the configuration has this name", route.name).into());
        }
        let pool = pool_name(listener, name);
        if self.pools.named(&pool).is_some() {
            return Err(format!("the configuration has a pool of the name `{pool}`").into());
        }
        if listener.routes.routes().iter().any(|route| *route.name == *pool) {
            return Err(format!("the listener has a route of the name `{pool}`").into());
        }
        Ok(())
    }

    /// This plan plus the announced pools, and a route to each.
    fn with_pools(&self, announced: BTreeMap<RouteKey, AnnouncedPool>) -> Self {
        let mut pools: Vec<Arc<PoolPlan>> = self.pools.to_vec();
        let mut routes: Vec<Vec<Route<PoolId>>> = self.listeners.iter().map(|_| Vec::new()).collect();
        for ((index, sni), AnnouncedPool { mut servers, .. }) in announced {
            let listener = &self.listeners[index];
            let Some(announce) = &listener.announce else { continue };
            let name: Arc<str> = pool_name(listener, &sni).into();
            routes[index].push(route(Arc::clone(&name), sni, announce.tls, PoolId(pools.len())));
            servers.sort_by(|a, b| a.label().cmp(b.label()));
            pools.push(Arc::new(PoolPlan {
                name,
                entries: servers.into(),
                ..PoolPlan::clone(&announce.pool)
            }));
        }
        let with_routes = |(listener, routes): (&Arc<ListenerPlan>, Vec<Route<PoolId>>)| {
            if routes.is_empty() {
                return Arc::clone(listener);
            }
            Arc::new(ListenerPlan {
                routes: listener.routes.with(routes),
                ..ListenerPlan::clone(listener)
            })
        };
        let accepting = self
            .listeners
            .iter()
            .zip(&routes)
            .filter(|(listener, _)| listener.announce.is_some());
        Self {
            announced_route_counts: accepting
                .map(|(listener, routes)| (Arc::clone(&listener.name), routes.len()))
                .collect(),
            listeners: self.listeners.iter().zip(routes).map(with_routes).collect(),
            pools: pools.into_iter().collect(),
            ..self.clone()
        }
    }
}

impl ListenerPlan {
    /// Whether a server may announce a route for this name at the listener: `announce` allows the name, and no route of
    /// the configuration has it.
    #[must_use]
    pub fn accepts_announcement_of(&self, name: &ServerName) -> bool {
        check_allowed(self, name).is_ok() && self.routes.route_of(name).is_none()
    }
}

/// Checks that a name may be announced at a listener.
fn check_allowed(listener: &ListenerPlan, name: &ServerName) -> Result<(), Reason> {
    let announce = listener.announce.as_ref().ok_or("the listener has no `announce`")?;
    let sni = Sni::Valid(name.clone());
    match announce.names.iter().any(|pattern| pattern.rank(&sni).is_some()) {
        true => Ok(()),
        false => Err("`announce` of the listener does not allow this name".into()),
    }
}

/// Whether a connection to this server would reach the listener.
fn is_address_of(listener: &ListenerPlan, server: &ServerEntry) -> bool {
    listener.bind.iter().any(|own| own.is_reached_at(&server.location))
}

/// The name of an announced route, and of its pool.
fn pool_name(listener: &ListenerPlan, name: &ServerName) -> String {
    format!("{}:{name}", listener.name)
}

fn route(name: Arc<str>, sni: ServerName, tls: TlsMode, pool: PoolId) -> Route<PoolId> {
    Route {
        name,
        sni: vec![NamePattern::Exact(sni)],
        alpn: Vec::new(),
        from: Vec::new(),
        tls,
        database: Vec::new(),
        user: Vec::new(),
        guards: Vec::new(),
        to: Target::Pool(pool),
    }
}

#[cfg(test)]
mod tests;
