//! Routes that servers announce for themselves, and a plan with them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::{ListenerPlan, Plan, PoolId, PoolPlan, ServerEntry};
use crate::addr::ServerLocation;
use crate::name::{NamePattern, ServerName, Sni};
use crate::route::{Route, Target, TlsMode};
use crate::text::{NAME_BYTES_MAX, Reason, is_name};

/// `announce` of a listener: who may announce routes at it.
#[derive(Clone, Debug)]
pub struct AnnouncePlan {
    /// The Unix socket of the Docker engine whose containers may.
    pub socket: Arc<Path>,
    /// One of these matches each name that they may announce; at least one.
    pub names: Vec<NamePattern>,
    /// What happens to the TLS of their clients.
    pub tls: TlsMode,
    /// What their pools are, apart from name and servers.
    pub pool: Arc<PoolPlan>,
}

/// A server that announces a route to itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// Its name, that of a container.
    pub from: Arc<str>,
    /// When that was created, in seconds since 1970.
    pub created: i64,
    /// The listener with the route.
    pub listener: Box<str>,
    /// The server name of the route.
    pub sni: Box<str>,
    /// Servers that announce one name belong together only if this is the same.
    pub group: Option<Box<str>>,
    /// The server, or why it is none.
    pub server: Result<ServerEntry, Reason>,
}

/// An announcement that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAnnouncement {
    /// The name of its server.
    pub from: Arc<str>,
    /// The listener that it names.
    pub listener: Reason,
    /// The server name that it wants.
    pub sni: Reason,
    /// Why.
    pub reason: Reason,
}

/// The servers that announce one name at one listener.
struct AnnouncedPool {
    /// That of the oldest of them.
    group: Option<Box<str>>,
    /// The name of the oldest of them.
    oldest: Arc<str>,
    servers: Vec<ServerEntry>,
}

/// The index of a listener, and a server name.
type RouteKey = (usize, ServerName);

impl Plan {
    /// The engine whose containers may announce routes; `None`: no listener accepts any.
    #[must_use]
    pub fn announcing_engine(&self) -> Option<&Arc<Path>> {
        let mut announces = self.listeners.iter().filter_map(|listener| listener.announce.as_ref());
        announces.next().map(|announce| &announce.socket) // all listeners have the same
    }

    /// This plan, of a file, with a route and a pool for each name that is announced. Of two servers that do not belong
    /// together, the one that was created later is refused.
    #[must_use]
    pub fn with_announced(&self, announcements: &[Announcement]) -> Self {
        let mut in_order: Vec<&Announcement> = announcements.iter().collect();
        in_order.sort_by_key(|announcement| (announcement.created, &announcement.from));
        let by_name = |(index, listener): (usize, &Arc<ListenerPlan>)| (Arc::clone(&listener.name), index);
        let listeners: HashMap<Arc<str>, usize> = self.listeners.iter().enumerate().map(by_name).collect();
        let mut announced = BTreeMap::new();
        let mut refused = Vec::new();
        for announcement in in_order {
            let listener = listeners.get(&*announcement.listener).copied();
            if let Err(reason) = self.admit(announcement, listener, &mut announced) {
                refused.push(RefusedAnnouncement {
                    from: Arc::clone(&announcement.from),
                    listener: Reason::new(&announcement.listener),
                    sni: Reason::new(&announcement.sni),
                    reason,
                });
            }
        }
        Self {
            refused_announcements: refused,
            ..self.with_pools(announced)
        }
    }

    /// Adds the server of an announcement to those of its name.
    fn admit(
        &self,
        announcement: &Announcement,
        listener: Option<usize>,
        announced: &mut BTreeMap<RouteKey, AnnouncedPool>,
    ) -> Result<(), Reason> {
        let Announcement { from, sni, group, .. } = announcement;
        let listener = listener.ok_or("there is no such listener")?;
        let name = ServerName::from_config(sni).map_err(|error| Reason::from(error.to_string()))?;
        self.check_name(&self.listeners[listener], &name)?;
        let server = announcement.server.clone()?;
        if let ServerLocation::Address(address) = server.location
            && self.listeners[listener]
                .bind
                .iter()
                .any(|own| own.accepts_connections_to(address))
        {
            return Err("its address is that of the listener".into());
        }
        let pool = announced.entry((listener, name)).or_insert_with(|| AnnouncedPool {
            group: group.clone(),
            oldest: Arc::clone(from),
            servers: Vec::new(),
        });
        if pool.group != *group {
            let message = format!(
                "`{}`, which is older, has the name, and another `acequia.pool`",
                pool.oldest
            );
            return Err(message.into());
        }
        pool.servers.push(server);
        Ok(())
    }

    /// Whether a name may be announced at a listener.
    fn check_name(&self, listener: &ListenerPlan, name: &ServerName) -> Result<(), Reason> {
        let announce = listener.announce.as_ref().ok_or("the listener has no `announce`")?;
        let sni = Sni::Valid(name.clone());
        if !announce.names.iter().any(|pattern| pattern.rank(&sni).is_some()) {
            return Err("`announce` of the listener does not allow this name".into());
        }
        if let Some(route) = listener.routes.route_of(name) {
            return Err(format!("route `{}` of the configuration has this name", route.name).into());
        }
        let pool = pool_name(listener, name);
        if !is_name(&pool) {
            return Err(
                format!("the name of its pool, LISTENER:NAME, would be longer than {NAME_BYTES_MAX} bytes").into(),
            );
        }
        if self.pools.named(&pool).is_some() {
            return Err(format!("the configuration has a pool of the name `{pool}`").into());
        }
        Ok(())
    }

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
        let listener = |(listener, routes): (&Arc<ListenerPlan>, Vec<Route<PoolId>>)| {
            if routes.is_empty() {
                return Arc::clone(listener);
            }
            Arc::new(ListenerPlan {
                routes: listener.routes.with(routes),
                ..ListenerPlan::clone(listener)
            })
        };
        Self {
            listeners: self.listeners.iter().zip(routes).map(listener).collect(),
            pools: pools.into_iter().collect(),
            ..self.clone()
        }
    }
}

/// The name of a route that is announced, and of its pool.
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
