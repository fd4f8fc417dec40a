//! Closes sessions of servers that should have none: servers that went down, are drained, or are of a worse tier than
//! the best one that is up again. The sessions are closed over a time, so that their clients do not all reconnect at
//! once.
//!
//! It polls the state of the servers instead of handling events. So a reload, a session that connects late, and a
//! server that is up again early need no code of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::account::{Ending, Ledger, Record};
use crate::live::{Live, LivePool};
use crate::plan::Sever;
use crate::pool::{AdminState, CheckState, Member, Overrides, ServerId};

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
    began: Instant,
    /// Sessions when it began.
    first: usize,
}

impl Severing {
    fn new(cause: Cause, began: Instant, first: usize) -> Self {
        Self { cause, began, first }
    }

    /// How many of the present sessions have to be closed now: those in excess of what may be left at this time. Of n
    /// sessions the i-th is closed after (i - 1)/n of the time, so the first one at once. Sessions that end by themselves
    /// count, and at the end none is left, however many were added meanwhile.
    fn due(&self, now: Instant, there: usize) -> usize {
        let left = self.cause.over.saturating_sub(now - self.began);
        if left.is_zero() {
            return there;
        }
        let may_be_left = (self.first as u128 * left.as_nanos()).div_ceil(self.cause.over.as_nanos());
        // At most `first`; one less, because the first is closed at the beginning and not after a part of the time.
        there.saturating_sub((may_be_left as usize).saturating_sub(1))
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

/// Why sessions on the fallback of a pool are to be closed, if there are any: the pool is usable again.
fn has_recovered(pool: &LivePool, now: Instant) -> Option<Cause> {
    let severing = pool.plan().severing;
    let is_wanted = severing.on_recover == Sever::Close && pool.has_fallback_sessions() && pool.is_usable(now);
    is_wanted.then_some(Cause {
        ending: Ending::FailedBack,
        over: severing.close_over,
    })
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
    let is_down = || (server.check_state() == CheckState::Down || is_held()) && !pool.uses_in_panic(server, now);
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
        let due = severing.due(now, there.len());
        for record in there.iter().take(due) {
            record.cut(severing.cause.ending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEN: Duration = Duration::from_secs(10);

    fn severing(first: usize, over: Duration) -> Severing {
        let cause = Cause {
            ending: Ending::ServerDown,
            over,
        };
        Severing::new(cause, Instant::now(), first)
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_closed_evenly_over_the_whole_time() {
        let five = severing(5, TEN);
        let mut there = 5;
        let mut cut_at = Vec::new();
        for tick in 0..=100 {
            let due = five.due(five.began + TICK * tick, there);
            there -= due;
            cut_at.extend(std::iter::repeat_n(tick / 10, due));
        }
        assert_eq!(cut_at, [0, 2, 4, 6, 8]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_session_is_closed_at_once() {
        let one = severing(1, TEN);
        assert_eq!(one.due(one.began, 1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_time_of_zero_all_sessions_are_closed_at_once() {
        let many = severing(1000, Duration::ZERO);
        assert_eq!(many.due(many.began, 1000), 1000);
    }

    proptest! {
        #[test]
        fn all_sessions_are_closed_at_the_end_and_never_more_than_the_pace_allows(
            first in 1usize..5000,
            millis in 0u64..60_000,
            steps in prop::collection::vec((0u64..500, 0usize..20, 0usize..20), 1..60),
        ) {
            let severing = severing(first, Duration::from_millis(millis));
            let (mut now, mut there) = (severing.began, first);
            for (wait, leave, come) in steps {
                now += Duration::from_millis(wait);
                there = there.saturating_sub(leave) + come;
                let due = severing.due(now, there);
                prop_assert!(due <= there);
                there -= due;
                let left = severing.cause.over.saturating_sub(now - severing.began);
                // Whole nanoseconds on both sides: (there + 1) * over against first * left.
                let (over, allowed) = (severing.cause.over.as_nanos(), first as u128 * left.as_nanos());
                let taken = there as u128 * over;
                prop_assert!(due == 0 || taken < allowed.max(1) && taken + over >= allowed);
            }
            prop_assert_eq!(severing.due(severing.began + severing.cause.over, there), there);
        }
    }
}
