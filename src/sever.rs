//! Closes sessions of servers that should have none: servers that went down, are drained, are of a worse tier than the
//! best one that is up again, are those of a fallback whose pool is usable again, or have left their pool. The sessions
//! are closed over a time, so that their clients do not all reconnect at once.
//!
//! It polls the state of the servers instead of handling events. So a reload, a session that connects late, and a
//! server that is up again early need no code of their own.

mod pace;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::account::{Ending, Ledger, Record};
use crate::live::{Live, LivePool};
use crate::plan::Sever;
use crate::pool::{AdminState, CheckState, Member, Overrides, Server, ServerId};
pub use pace::Pace;

/// How often the state is polled.
const TICK: Duration = Duration::from_millis(100);

/// Why sessions of a server are closed, and over what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cause {
    ending: Ending,
    over: Duration,
}

/// Sessions that are closed at one pace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Group {
    /// Those of a server.
    Server(ServerId),
    /// Those that were meant for the pool of this name, and are on the servers of its fallback.
    OnFallback(Arc<str>),
}

/// The sessions of a group are being closed.
#[derive(Clone, Copy, Debug)]
struct Severing {
    cause: Cause,
    pace: Pace,
}

impl Severing {
    fn new(cause: Cause, began: Instant, first: usize) -> Self {
        let over = cause.over;
        Self {
            cause,
            pace: Pace { over, began, first },
        }
    }
}

/// Closes sessions where that is necessary, for as long as it is polled.
pub async fn run(live: Arc<Live>, ledgers: Vec<Arc<Ledger>>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut severings = HashMap::new();
    loop {
        let now = ticks.tick().await;
        let wanted = wanted(&live, &severings, now);
        if wanted.is_empty() {
            severings.clear();
        } else {
            sever(&wanted, &mut severings, &ledgers, now);
        }
    }
}

/// The servers whose sessions are to be closed, of those that have any. A server that a reload has removed keeps its cause,
/// unless an operator drains it or ends its drain. An operator's drain has precedence over the other causes.
fn wanted(live: &Live, severings: &HashMap<Group, Severing>, now: Instant) -> HashMap<Group, Cause> {
    let without_drains = severings
        .iter()
        .filter(|(_, severing)| severing.cause.ending != Ending::ServerDrained);
    let mut wanted: HashMap<_, _> = without_drains
        .map(|(group, severing)| (group.clone(), severing.cause))
        .collect();
    for pool in live.in_force().pools.iter() {
        let departed = pool.dynamic().departed();
        wanted.extend(
            departed
                .iter()
                .filter_map(|server| Some((Group::Server(server.id()), departure(pool)?))),
        );
        let on_fallback = Group::OnFallback(Arc::clone(pool.name()));
        wanted.remove(&on_fallback);
        wanted.extend(has_recovered(pool, now).map(|cause| (on_fallback, cause)));
        for server in pool.servers().iter() {
            let group = Group::Server(server.id());
            wanted.remove(&group);
            // Most servers have no sessions to close.
            if server.live() > 0
                && let Some(cause) = cause(pool, server, now)
            {
                wanted.insert(group, cause);
            }
        }
    }
    let drained = live.overridden().into_iter().filter(|server| server.live() > 0);
    wanted.extend(drained.filter_map(|server| Some((Group::Server(server.id()), drain(&server.overrides())?))));
    wanted
}

fn drain(overrides: &Overrides) -> Option<Cause> {
    overrides.close_over.map(|over| Cause {
        ending: Ending::ServerDrained,
        over,
    })
}

/// Why sessions of servers that have left this pool are to be closed.
fn departure(pool: &LivePool) -> Option<Cause> {
    let severing = pool.plan().severing;
    (severing.on_leave == Sever::Close).then_some(Cause {
        ending: Ending::ServerDrained,
        over: severing.close_over,
    })
}

/// Why sessions on the fallback of a pool are to be closed, if there are any: the pool is usable again.
fn has_recovered(pool: &LivePool, now: Instant) -> Option<Cause> {
    let severing = pool.plan().severing;
    let is_back = || pool.is_usable(now) && !pool.is_on_stand_in(now);
    let is_wanted = severing.on_recover == Sever::Close && pool.has_fallback_sessions() && is_back();
    is_wanted.then_some(Cause {
        ending: Ending::FailedBack,
        over: severing.close_over,
    })
}

/// The time over which the sessions of a server that has just gone down are closed; `None`: they go on, or there are none.
#[must_use]
pub fn closes_over(pool: &LivePool, server: &Server, now: Instant) -> Option<Duration> {
    if server.live() == 0 {
        return None; // before the search, which would take long where thousands of servers change at once
    }
    let servers = pool.servers();
    let member = servers.iter().find(|member| member.id() == server.id())?;
    Some(cause(pool, member, now)?.over)
}

fn cause(pool: &LivePool, server: &Member, now: Instant) -> Option<Cause> {
    let severing = pool.plan().severing;
    let over = severing.close_over;
    let on_down = if server.is_behind() {
        severing.on_lag
    } else {
        severing.on_down
    };
    let is_held = || server.overrides().admin_state == AdminState::AwaitingFailback;
    let is_down = || {
        (server.check_state() == CheckState::Down || is_held())
            && !pool.uses_in_panic(server, now)
            && !server.is_stand_in()
    };
    if on_down == Sever::Close && is_down() {
        return Some(Cause {
            ending: Ending::ServerDown,
            over,
        });
    }
    let is_worse = || pool.best_tier(now).is_some_and(|best| server.priority() > best);
    (severing.on_recover == Sever::Close && is_worse()).then_some(Cause {
        ending: Ending::FailedBack,
        over,
    })
}

/// Closes the sessions that are due, the oldest of a server first.
fn sever(
    wanted: &HashMap<Group, Cause>,
    severings: &mut HashMap<Group, Severing>,
    ledgers: &[Arc<Ledger>],
    now: Instant,
) {
    let mut sessions: HashMap<Group, Vec<Arc<Record>>> = HashMap::new();
    for record in ledgers.iter().flat_map(|ledger| ledger.records()) {
        let Some(server) = record.server().map(Group::Server) else {
            continue;
        };
        let on_fallback = || record.fallback_from().map(Group::OnFallback);
        let group = if wanted.contains_key(&server) {
            Some(server)
        } else {
            on_fallback().filter(|group| wanted.contains_key(group))
        };
        if let Some(group) = group {
            sessions.entry(group).or_default().push(record);
        }
    }
    severings.retain(|group, _| sessions.contains_key(group));
    for (group, mut there) in sessions {
        let anew = Severing::new(wanted[&group], now, there.len());
        let severing = severings.entry(group).or_insert(anew);
        if severing.cause != anew.cause {
            *severing = anew;
        }
        there.sort_unstable_by_key(|record| record.id());
        let due = severing.pace.due(now, there.len());
        for record in there.iter().take(due) {
            record.cut(severing.cause.ending);
        }
    }
}
