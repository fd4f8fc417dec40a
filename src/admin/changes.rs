//! The changes between two states, for the streams of events.

use std::collections::{BTreeMap, HashMap};
use std::mem::take;

use serde::{Deserialize, Serialize};

use super::announced_bodies::AnnouncedBody;
use super::bodies::{AbsentServerBody, ListenerBody, PoolBody, ReloadBody, ServerBody, StateBody, TotalsBody};
use super::guard_bodies::GuardBody;
use super::remote_bodies::RemoteBody;

/// The event `changes` of `GET /api/v1/events`: the parts of [`StateBody`] that have changed, and some that are always
/// there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ChangesBody {
    /// As in [`StateBody`].
    uptime: u64,
    /// As in [`StateBody`].
    draining: bool,
    /// As in [`StateBody`].
    #[serde(default)]
    in_force_since: String,
    /// As in [`StateBody`].
    last_reload: Option<ReloadBody>,
    /// As in [`StateBody`], if it has changed.
    #[serde(default)]
    remote: Option<RemoteBody>,
    /// As in [`StateBody`].
    #[serde(default)]
    unsaved: Vec<String>,
    /// As in [`StateBody`].
    totals: TotalsBody,
    /// All guards, if one has changed.
    guards: Option<Vec<GuardBody>>,
    /// As in [`StateBody`], if it has changed.
    #[serde(default)]
    announced: Option<AnnouncedBody>,
    /// All overrides of absent servers, if one has changed.
    absent: Option<Vec<AbsentServerBody>>,
    /// The numbers of open sessions that have changed, by listener.
    listeners: BTreeMap<String, usize>,
    /// The routes whose counts of sessions have changed, by listener and name: the open sessions, and the sessions so
    /// far.
    #[serde(default)]
    routes: BTreeMap<String, BTreeMap<String, (usize, u64)>>,
    /// Pools in which the names of the servers, or another field than `servers`, have changed.
    pools: Vec<PoolBody>,
    /// Servers that have changed in more than their counts of sessions, in pools that are not in `pools`; by pool.
    servers: BTreeMap<String, Vec<ServerBody>>,
    /// Servers of which only the counts of sessions have changed, in pools that are not in `pools`; by pool and name:
    /// the open sessions, and the sessions so far.
    sessions: BTreeMap<String, BTreeMap<String, (u32, u64)>>,
}

/// The changes between two states.
#[derive(Debug)]
pub(super) enum StateChanges {
    /// What has changed.
    Partial(Box<ChangesBody>),
    /// The whole state is to be shown again, because something has changed that [`ChangesBody`] does not have: the TLS
    /// of the admin port, a listener in more than its counts of sessions, the list of pools, or whether there is a
    /// store or a source of announced routes.
    Whole,
}

/// Compares two states of one process. Consumes the earlier one, and leaves `now` as it was.
pub(super) fn changes_between(mut before: StateBody, now: &mut StateBody) -> StateChanges {
    let mut changes = ChangesBody {
        uptime: now.uptime,
        draining: now.draining,
        in_force_since: now.in_force_since.clone(),
        last_reload: now.last_reload.clone(),
        remote: (before.remote != now.remote).then(|| now.remote.clone()).flatten(),
        unsaved: now.unsaved.clone(),
        totals: now.totals.clone(),
        guards: (before.guards != now.guards).then(|| now.guards.clone()),
        announced: (before.announced != now.announced)
            .then(|| now.announced.clone())
            .flatten(),
        absent: (before.absent != now.absent).then(|| now.absent.clone()),
        ..ChangesBody::default()
    };
    for (before, now) in before.listeners.iter_mut().zip(&now.listeners) {
        changes.add_listener(before, now);
    }
    let names_before = before.pools.iter().map(|pool| &pool.name);
    // The listeners are compared without their counts, which `add_listener` has made equal.
    if before.admin_tls != now.admin_tls
        || before.remote.is_some() != now.remote.is_some()
        || before.announced.is_some() != now.announced.is_some()
        || before.listeners != now.listeners
        || !names_before.eq(now.pools.iter().map(|pool| &pool.name))
    {
        return StateChanges::Whole;
    }
    for (before, now) in before.pools.into_iter().zip(&mut now.pools) {
        changes.add_pool(before, now);
    }
    StateChanges::Partial(Box::new(changes))
}

impl ChangesBody {
    /// Turns the earlier state into the later one.
    pub fn apply(mut self, state: &mut StateBody) {
        state.uptime = self.uptime;
        state.draining = self.draining;
        state.in_force_since = self.in_force_since;
        state.last_reload = self.last_reload;
        state.remote = self.remote.or_else(|| state.remote.take());
        state.unsaved = self.unsaved;
        state.totals = self.totals;
        state.guards = self.guards.unwrap_or_else(|| take(&mut state.guards));
        state.announced = self.announced.or_else(|| state.announced.take());
        state.absent = self.absent.unwrap_or_else(|| take(&mut state.absent));
        for listener in &mut state.listeners {
            listener.sessions = self.listeners.remove(&listener.name).unwrap_or(listener.sessions);
            let counts = self.routes.remove(&listener.name).unwrap_or_default();
            for route in &mut listener.routes {
                if let Some(counts) = counts.get(&route.name) {
                    (route.sessions, route.sessions_so_far) = *counts;
                }
            }
        }
        let mut pools: HashMap<_, _> = self.pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect();
        for pool in &mut state.pools {
            if let Some(changed) = pools.remove(&pool.name) {
                *pool = changed;
                continue;
            }
            let servers = self.servers.remove(&pool.name).unwrap_or_default();
            let mut servers: HashMap<_, _> = servers
                .into_iter()
                .map(|server| (server.name.clone(), server))
                .collect();
            let sessions = self.sessions.remove(&pool.name).unwrap_or_default();
            for server in &mut pool.servers {
                if let Some(changed) = servers.remove(&server.name) {
                    *server = changed;
                } else if let Some(counts) = sessions.get(&server.name) {
                    (server.sessions, server.sessions_so_far) = *counts;
                }
            }
        }
    }

    /// Adds the counts that have changed, and copies them into `before`.
    fn add_listener(&mut self, before: &mut ListenerBody, now: &ListenerBody) {
        if before.sessions != now.sessions {
            self.listeners.insert(now.name.clone(), now.sessions);
            before.sessions = now.sessions;
        }
        for (route_before, route_now) in before.routes.iter_mut().zip(&now.routes) {
            let counts = (route_now.sessions, route_now.sessions_so_far);
            if route_before.name == route_now.name && (route_before.sessions, route_before.sessions_so_far) != counts {
                let of_listener = self.routes.entry(now.name.clone()).or_default();
                of_listener.insert(route_now.name.clone(), counts);
                (route_before.sessions, route_before.sessions_so_far) = counts;
            }
        }
    }

    fn add_pool(&mut self, mut before: PoolBody, now: &mut PoolBody) {
        // The servers are taken out, so that the pools are compared by all other fields.
        let (servers_before, servers_now) = (take(&mut before.servers), take(&mut now.servers));
        let names_before = servers_before.iter().map(|server| &server.name);
        let is_same = before == *now && names_before.eq(servers_now.iter().map(|server| &server.name));
        now.servers = servers_now;
        if !is_same {
            self.pools.push(now.clone());
            return;
        }
        for (server_before, server_now) in servers_before.into_iter().zip(&now.servers) {
            self.add_server(&now.name, server_before, server_now);
        }
    }

    fn add_server(&mut self, pool: &str, mut before: ServerBody, now: &ServerBody) {
        if before == *now {
            return;
        }
        (before.sessions, before.sessions_so_far) = (now.sessions, now.sessions_so_far);
        if before == *now {
            let of_pool = self.sessions.entry(pool.to_owned()).or_default();
            of_pool.insert(now.name.clone(), (now.sessions, now.sessions_so_far));
        } else {
            self.servers.entry(pool.to_owned()).or_default().push(now.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> StateBody {
        let server = |name: &str| {
            serde_json::json!({
                "name": name, "address": "127.0.0.1:9", "priority": 0, "weight": 1, "up": true, "health": "up",
                "reason": null, "since": "2026-11-24T02:16:06.530Z", "ejected": false, "use": "enabled",
                "close_over": null, "weight_is_set": false, "set_by": null, "set_at": null, "sessions": 0,
                "sessions_so_far": 0
            })
        };
        let route = |name: &str| {
            serde_json::json!({
                "name": name, "sni": [], "alpn": [], "from": [], "database": [], "user": [], "more": 0, "pool": "a",
                "tls": "pass"
            })
        };
        let state = serde_json::json!({
            "version": "0.1.0", "pid": 1, "configuration": null, "started": "2026-11-24T02:16:06.512Z", "uptime": 5,
            "draining": false, "last_reload": null,
            "totals": { "sessions": 0, "sessions_so_far": 0, "servers": 3, "servers_up": 3 },
            "listeners": [{
                "name": "l", "addresses": [], "sessions": 0, "max_connections": null, "pool": "a", "tls": null,
                "routes": [route("x"), route("y")], "more_routes": 0
            }],
            "pools": [
                { "name": "a", "balance": "least-conn", "best_tier": 0, "panic": false, "servers": [server("1"), server("2")] },
                { "name": "b", "balance": "least-conn", "best_tier": 0, "panic": false, "servers": [server("1")] }
            ]
        });
        serde_json::from_value(state).unwrap()
    }

    /// The changes that are found after `change` is applied to a state.
    fn changes(change: impl FnOnce(&mut StateBody)) -> StateChanges {
        changes_from(state(), change)
    }

    fn changes_from(before: StateBody, change: impl FnOnce(&mut StateBody)) -> StateChanges {
        let mut now = before.clone();
        change(&mut now);
        let expected = now.clone();
        let changes = changes_between(before.clone(), &mut now);
        assert_eq!(now, expected, "the later state is as it was before the comparison");
        if let StateChanges::Partial(changes) = &changes {
            let sent = serde_json::to_string(changes).unwrap();
            let mut applied = before;
            serde_json::from_str::<ChangesBody>(&sent).unwrap().apply(&mut applied);
            assert_eq!(
                applied, expected,
                "a client that applies the changes knows the new state"
            );
        }
        changes
    }

    fn partial(change: impl FnOnce(&mut StateBody)) -> ChangesBody {
        match changes(change) {
            StateChanges::Partial(changes) => *changes,
            StateChanges::Whole => panic!("expected changes, got the whole state"),
        }
    }

    #[test]
    fn unchanged_entries_are_not_listed() {
        let same = partial(|_| ());
        assert!(same.pools.is_empty() && same.servers.is_empty() && same.sessions.is_empty());
        assert!(same.listeners.is_empty() && same.guards.is_none() && same.absent.is_none());
    }

    #[test]
    fn a_server_with_only_new_session_counts_is_listed_by_its_counts() {
        let changed = partial(|state| {
            state.pools[0].servers[1].sessions = 7;
            state.listeners[0].sessions = 7;
        });
        assert_eq!(changed.sessions["a"]["2"], (7, 0));
        assert_eq!(changed.listeners["l"], 7);
        assert!(changed.servers.is_empty() && changed.pools.is_empty());
    }

    #[test]
    fn a_route_with_new_session_counts_is_listed_by_its_counts() {
        let changed = partial(|state| {
            state.listeners[0].routes[1].sessions_so_far = 7;
            state.listeners[0].sessions = 3;
        });
        assert_eq!(changed.routes["l"]["y"], (0, 7));
        assert_eq!(changed.routes["l"].len(), 1);
    }

    #[test]
    fn changed_servers_and_pools_with_other_servers_are_listed() {
        let changed = partial(|state| {
            state.pools[0].servers[1].health = "down".into();
            state.pools[1].servers.clear();
        });
        assert_eq!(changed.servers["a"][0].name, "2");
        assert_eq!(changed.servers.len(), 1);
        assert_eq!(changed.pools.len(), 1);
        assert!(changed.pools[0].servers.is_empty());
    }

    #[test]
    fn changes_of_the_store_and_of_announcements_are_sent() {
        let remote = |lost: Option<&str>| {
            serde_json::from_value(serde_json::json!({
                "from": "etcd:/a", "instance": "one", "revision": 1, "keys": 1, "since": null, "refused": null,
                "lost": lost, "lost_since": null
            }))
            .unwrap()
        };
        let announced = |error: Option<&str>| {
            serde_json::from_value(serde_json::json!({
                "source": "docker", "up": true, "last_success": null, "error": error, "refused": [], "more_refused": 0
            }))
            .unwrap()
        };
        assert!(matches!(
            changes(|state| state.remote = remote(None)),
            StateChanges::Whole
        ));
        assert!(matches!(
            changes(|state| state.announced = announced(None)),
            StateChanges::Whole
        ));
        let with_both = || StateBody {
            remote: remote(None),
            announced: announced(None),
            ..state()
        };
        let changed = changes_from(with_both(), |state| {
            (state.remote, state.announced) = (remote(Some("refused")), announced(Some("refused")));
        });
        assert!(
            matches!(changed, StateChanges::Partial(changes) if changes.remote.is_some() && changes.announced.is_some())
        );
        let same = changes_from(with_both(), |_| ());
        assert!(
            matches!(same, StateChanges::Partial(changes) if changes.remote.is_none() && changes.announced.is_none())
        );
    }

    #[test]
    fn a_changed_listener_or_list_of_pools_sends_the_whole_state() {
        assert!(matches!(changes(|state| state.pools.truncate(1)), StateChanges::Whole));
        assert!(matches!(
            changes(|state| state.listeners[0].pool = None),
            StateChanges::Whole
        ));
        assert!(matches!(
            changes(|state| state.listeners[0].routes[1].more = 1),
            StateChanges::Whole
        ));
    }
}
