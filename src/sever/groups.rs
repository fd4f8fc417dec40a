//! The servers that should have no sessions, and the pools that should have none on their fallback, whether they have some
//! or not.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::{Cause, Group, Severing};
use crate::account::Ending;
use crate::live::{Live, LivePool};
use crate::plan::Sever;
use crate::pool::{AdminState, CheckState, Member, Overrides, Role, Server};

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
    sessions: SessionOwner,
}

/// Finds out whether a group has sessions. It holds servers and pools weakly: a removed server that returns would keep its old
/// state if something still held it.
#[derive(Debug)]
enum SessionOwner {
    Server(Weak<Server>),
    FallbackOf(Weak<LivePool>),
    /// The sessions were being closed when their server was removed. There are sessions as long as the closing goes on.
    Remaining,
}

impl GroupsToClose {
    /// Looks at all servers of pools that close sessions. A server that a reload has removed keeps its cause, unless that is a
    /// drain, which may have ended. An operator's drain has precedence over the other causes, except over one that closes
    /// some sessions at once; the shorter of the two times holds.
    pub(super) fn find(live: &Live, severings: &HashMap<Group, Severing>, now: Instant) -> Self {
        let mut groups = Self::default();
        for (group, severing) in severings {
            if severing.cause.ending != Ending::ServerDrained {
                groups.add(group.clone(), severing.cause, SessionOwner::Remaining);
            }
        }
        let has_remaining = !groups.is_empty();
        for pool in live.in_force().pools.iter() {
            // Most pools close none.
            if pool.plan().severing.is_on() || has_remaining {
                groups.add_pool(pool, now);
            }
        }
        for server in live.overridden() {
            if let Some(drain) = drain(&server.overrides()) {
                let other = groups.by_group.get(&Group::Server(server.id()));
                let cause = other.map_or(drain, |other| drain.without_delay(other.cause));
                groups.add_server(&server, cause);
            }
        }
        groups.add_renamed(live);
        groups
    }

    /// Adds the servers that have left their pool and are in it under another name: the sessions of before are sessions of that
    /// server.
    fn add_renamed(&mut self, live: &Live) {
        if self.is_empty() {
            return;
        }
        for pool in live.in_force().pools.iter() {
            let departed = pool.dynamic().departed();
            if departed.is_empty() {
                continue; // nearly always
            }
            for server in pool.servers().iter() {
                let Some(to_close) = self.by_group.get(&Group::Server(server.id())) else {
                    continue;
                };
                let cause = to_close.cause;
                let former = departed.iter().filter(|former| former.count_id() == server.count_id());
                former.for_each(|former| self.add_server(former, cause));
            }
        }
    }

    fn add_pool(&mut self, pool: &Arc<LivePool>, now: Instant) {
        if let Some(cause) = departure(pool) {
            let departed = pool.dynamic().departed();
            departed.iter().for_each(|server| self.add_server(server, cause));
        }
        let on_fallback = Group::OnFallback(Arc::clone(pool.name()));
        self.by_group.remove(&on_fallback);
        if let Some(cause) = recovery(pool, now) {
            self.add(on_fallback, cause, SessionOwner::FallbackOf(Arc::downgrade(pool)));
        }
        for server in pool.servers().iter() {
            self.by_group.remove(&Group::Server(server.id()));
            if let Some(cause) = cause(pool, server, now) {
                self.add_server(server, cause);
            }
        }
        self.change_at = self.change_at.into_iter().chain(pool.changes_at(now)).min();
    }

    fn add_server(&mut self, server: &Arc<Server>, cause: Cause) {
        let sessions = SessionOwner::Server(Arc::downgrade(server));
        self.add(Group::Server(server.id()), cause, sessions);
    }

    fn add(&mut self, group: Group, cause: Cause, sessions: SessionOwner) {
        self.by_group.insert(group, GroupToClose { cause, sessions });
    }

    /// The groups that have sessions. `severings`: the sessions that are being closed.
    pub(super) fn with_sessions(&mut self, severings: &HashMap<Group, Severing>) -> HashMap<Group, Cause> {
        let mut wanted = HashMap::new();
        self.by_group.retain(|group, to_close| {
            let has_sessions = match &to_close.sessions {
                SessionOwner::Server(server) => server.upgrade().map(|server| server.live() > 0),
                SessionOwner::FallbackOf(pool) => pool.upgrade().map(|pool| pool.has_fallback_sessions()),
                SessionOwner::Remaining => severings.contains_key(group).then_some(true),
            };
            if has_sessions == Some(true) {
                wanted.insert(group.clone(), to_close.cause);
            }
            has_sessions.is_some()
        });
        wanted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }

    /// When the groups may change merely because time passes; `None`: never.
    pub(super) fn change_at(&self) -> Option<Instant> {
        self.change_at
    }
}

fn drain(overrides: &Overrides) -> Option<Cause> {
    overrides.close_over.map(|over| Cause {
        ending: Ending::ServerDrained,
        over,
        ends_since: None,
    })
}

/// Why sessions of servers that have left this pool are to be closed.
fn departure(pool: &LivePool) -> Option<Cause> {
    let severing = pool.plan().severing;
    (severing.on_leave == Sever::Close).then_some(Cause {
        ending: Ending::ServerDrained,
        over: severing.close_over,
        ends_since: None,
    })
}

/// Why sessions on the fallback of a pool are to be closed, if there are any: the pool is usable again.
fn recovery(pool: &LivePool, now: Instant) -> Option<Cause> {
    let severing = pool.plan().severing;
    let may_have_some = || pool.plan().fallback.is_some() || pool.has_fallback_sessions();
    let is_back = || may_have_some() && pool.is_usable(now) && !pool.is_on_stand_in(now);
    (severing.on_recover == Sever::Close && is_back()).then_some(Cause {
        ending: Ending::FailedBack,
        over: severing.close_over,
        ends_since: None,
    })
}

/// Why sessions of a server of a pool are to be closed, if there are any.
pub(super) fn cause(pool: &LivePool, server: &Member, now: Instant) -> Option<Cause> {
    let severing = pool.plan().severing;
    let over = severing.close_over;
    let on_down = if server.is_behind() {
        severing.on_lag
    } else {
        severing.on_down
    };
    let is_held = || !server.is_enabled() && server.overrides().admin_state == AdminState::AwaitingFailback;
    let is_down = || {
        (server.check_state() == CheckState::Down || is_held())
            && !pool.uses_in_panic(server, now)
            && !server.is_stand_in()
    };
    // A disabled server is not checked: it may be an old primary.
    let is_replaced = || {
        let required = pool.plan().health.required;
        let in_force = || pool.roles().primary_in_force();
        let is_other = || in_force().is_some_and(|primary| primary != server.spec().label);
        server.is_disabled() && required.role == Some(Role::Primary) && required.is_one_primary() && is_other()
    };
    if on_down == Sever::Close && (is_down() || is_replaced()) {
        return Some(Cause {
            ending: Ending::ServerDown,
            over,
            ends_since: (pool.plan().health.required.role == Some(Role::Primary)).then(|| server.serves_at()),
        });
    }
    let is_worse = || pool.best_tier(now).is_some_and(|best| server.priority() > best);
    (severing.on_recover == Sever::Close && is_worse()).then_some(Cause {
        ending: Ending::FailedBack,
        over,
        ends_since: None,
    })
}
