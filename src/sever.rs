//! Closes sessions of servers that should have none: of servers that went down, are drained, or have left their pool,
//! and of servers of a worse tier, once a better tier is up again. On the servers of a fallback, closes the sessions
//! that were meant for another pool, once that pool is usable again. The sessions are closed over a time, so that their
//! clients do not all reconnect at once.
//!
//! This module compares states instead of handling events. So no code is needed for a session that connects after its
//! server went down, or for a server that is up again before all its sessions are closed. For a server that left, the
//! cause to close its sessions is kept ([`crate::live::Departed`]). All servers are looked at only after a change, or
//! when time alone may change a cause. In between, only the `GroupsToClose` are polled: whether the groups that should
//! have no sessions have any. If there are no such groups, this module sleeps.

mod pace;
mod groups;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::account::{Ledger, Record};
use crate::live::{Cause, INTERVAL_MIN, Live, LivePool};
use crate::pool::{Server, ServerId};
use groups::GroupsToClose;
pub use pace::Pace;

/// Sessions that are closed at one pace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Group {
    /// The sessions of a server.
    Server(ServerId),
    /// The sessions that were meant for the pool of this name, and are on servers of its fallback.
    OnFallback(Arc<str>),
}

/// The closing of a group's sessions.
#[derive(Clone, Copy, Debug)]
struct Severing {
    cause: Cause,
    pace: Pace,
}

impl Severing {
    fn new(cause: Cause, began: Instant, initial: usize) -> Self {
        let over = cause.over;
        Self {
            cause,
            pace: Pace { over, began, initial },
        }
    }

    /// Takes over the cause of `latest`. The pace begins anew only if `ending` or `over` differs. A new `at_once_since`
    /// must not delay the end of the sessions: it changes with each check that finds that the server serves, and a
    /// server that is down may pass checks before it is up again.
    fn update(&mut self, latest: Self) {
        let pace_of = |cause: &Cause| (cause.ending, cause.over);
        if pace_of(&self.cause) == pace_of(&latest.cause) {
            self.cause = latest.cause;
        } else {
            *self = latest;
        }
    }
}

/// Closes sessions where that is necessary, for as long as it is polled.
pub async fn run(live: Arc<Live>, ledgers: Vec<Arc<Ledger>>) {
    let mut changes = live.changes();
    let mut severer = Severer::default();
    let mut has_changed = true;
    loop {
        let look_again_at = severer.close_due(&live, &ledgers, has_changed, Instant::now());
        has_changed = changes.next(look_again_at).await;
    }
}

/// The state between two calls of [`Severer::close_due`].
#[derive(Default)]
struct Severer {
    groups: GroupsToClose,
    severings: HashMap<Group, Severing>,
}

impl Severer {
    /// Closes the sessions that are due. Returns when to look again; `None`: not before something has changed.
    fn close_due(&mut self, live: &Live, ledgers: &[Arc<Ledger>], has_changed: bool, now: Instant) -> Option<Instant> {
        if has_changed || self.groups.change_at().is_some_and(|at| at <= now) {
            self.groups = GroupsToClose::find(live, now);
        }
        let causes = self.groups.causes_of_open_sessions();
        if causes.is_empty() {
            self.severings.clear();
        } else {
            sever(&causes, &mut self.severings, ledgers, now);
        }
        let poll = (!self.groups.is_empty()).then_some(now + INTERVAL_MIN);
        poll.into_iter().chain(self.groups.change_at()).min()
    }
}

/// The time over which the sessions of a server that has just gone down are closed; `None`: they go on, or there are
/// none.
#[must_use]
pub fn closing_time(pool: &LivePool, server: &Server, now: Instant) -> Option<Duration> {
    if server.live() == 0 {
        return None; // before the search, which would take long where thousands of servers change at once
    }
    let servers = pool.servers();
    let member = servers.iter().find(|member| member.id() == server.id())?;
    Some(pool.cause(member, now)?.over)
}

/// Closes the sessions that are due: those that [`Cause::at_once_since`] closes at once, and of the others as many as
/// the [`Pace`] of their group says, the oldest first. `causes`: why the sessions of each group are to be closed.
fn sever(
    causes: &HashMap<Group, Cause>,
    severings: &mut HashMap<Group, Severing>,
    ledgers: &[Arc<Ledger>],
    now: Instant,
) {
    let mut sessions: HashMap<Group, Vec<Arc<Record>>> = HashMap::new();
    for record in ledgers.iter().flat_map(|ledger| ledger.records()) {
        let Some(on_server) = record.server().map(Group::Server) else {
            continue;
        };
        if record.has_server_ended() {
            continue; // its client may still have to get the last bytes
        }
        let ends_at_once = |cause: &&Cause| {
            let since = cause.at_once_since;
            since.is_some_and(|since| record.is_connected_after(since) || !record.is_served())
        };
        if let Some(cause) = causes.get(&on_server).filter(ends_at_once) {
            record.cut(cause.ending);
            continue;
        }
        let group = if causes.contains_key(&on_server) {
            Some(on_server)
        } else {
            let on_fallback = record.fallback_from().map(Group::OnFallback);
            on_fallback.filter(|group| causes.contains_key(group))
        };
        if let Some(group) = group {
            sessions.entry(group).or_default().push(record);
        }
    }
    severings.retain(|group, _| sessions.contains_key(group));
    for (group, mut records) in sessions {
        let latest = Severing::new(causes[&group], now, records.len());
        let severing = severings.entry(group).or_insert(latest);
        severing.update(latest);
        records.sort_unstable_by_key(|record| record.id());
        let due = severing.pace.due(now, records.len());
        for record in records.iter().take(due) {
            record.cut(severing.cause.ending);
        }
    }
}

#[cfg(test)]
mod tests;
