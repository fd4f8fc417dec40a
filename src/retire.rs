//! Ends sessions that should not go on for ever, at a moment at which they are at rest: those that have reached their
//! age limit (90 % to 110 % of `max_session_age`), and with `rebalance` those in excess on servers that have more than
//! their share. Sessions that are too old and are never at rest are cut a tenth of `max_session_age` after their limit.
//!
//! A session is at rest if no byte has moved for `idle_for`, and the session itself finds that nothing is unsent, that
//! the peers have acknowledged everything, and that the last byte came from the server. This module sees how many bytes
//! were read. Only the session sees when the kernel delivers them to a peer that reads slowly. So the session is asked
//! to look for deliveries when half of `idle_for` is over. If it finds bytes on their way, it is asked again at each
//! tick, and `idle_for` begins when they are delivered.
//!
//! This module looks at the sessions at each tick; sessions set no timers. So sessions of other pools pay nothing, and
//! a reload needs no code of its own. While no pool has `max_session_age` or `rebalance`, the module sleeps.

mod balance;
mod rebalancing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::xxh3_64;

use crate::account::{Ending, Ledger, Record};
use crate::live::{InForce, Live, LivePool};
use crate::plan::RetirePlan;
use crate::pool::CountId;
use balance::Balance;
use rebalancing::Rebalancing;

/// The interval between two ticks, unless a `max_age` needs a shorter one.
const INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Ends sessions where that is due, for as long as it is polled.
pub async fn run(live: Arc<Live>, ledgers: Vec<Arc<Ledger>>) {
    let mut reloads = live.subscribe();
    let mut retirement = Retirement::default();
    loop {
        let now = Instant::now();
        let rules = rules(&reloads.borrow_and_update(), now);
        let interval = interval(&rules);
        if rules.is_empty() {
            retirement = Retirement::default();
            if reloads.changed().await.is_err() {
                return; // nothing is in force any more
            }
        } else {
            let records = ledgers.iter().flat_map(|ledger| ledger.records());
            retirement.tick(&rules, records, now);
            sleep(interval).await;
        }
    }
}

/// The interval between two ticks. A session that has reached its age limit is cut a tenth of `max_age` later. The
/// interval is at most a twentieth of `max_age`, so that a tick in between can end the session at rest.
fn interval(rules: &HashMap<Arc<str>, PoolRetirement>) -> Duration {
    let ages = rules.values().filter_map(|rule| rule.plan.max_age);
    ages.map(|age| age / 20)
        .chain([INTERVAL_MAX])
        .min()
        .unwrap_or(INTERVAL_MAX)
}

/// The rules for the sessions of a pool.
struct PoolRetirement {
    plan: RetirePlan,
    /// The time over which sessions in excess are ended, and how sessions are spread; `None`: the pool is not
    /// rebalanced.
    balance: Option<(Duration, Balance)>,
}

/// The rules of the pools that end sessions, by the name of the pool.
fn rules(in_force: &InForce, now: Instant) -> HashMap<Arc<str>, PoolRetirement> {
    let pools = in_force.pools.iter().filter(|pool| pool.plan().retiring.is_on());
    let rule = |pool: &Arc<LivePool>| {
        let plan = pool.plan().retiring;
        let balance = plan.rebalance.map(|over| (over, Balance::new(&pool.loads(now))));
        (Arc::clone(pool.name()), PoolRetirement { plan, balance })
    };
    pools.map(rule).collect()
}

/// The state between two ticks.
#[derive(Default)]
struct Retirement {
    /// The sessions that were seen at the last tick, by number.
    seen: HashMap<u64, SeenSession>,
    /// The pools that are being rebalanced.
    rebalancing: HashMap<Arc<str>, Rebalancing>,
}

/// The remembered state of a session.
#[derive(Clone, Copy)]
struct SeenSession {
    bytes: u64,
    /// [`Record::deliveries`]: changes when the session finds bytes on their way.
    deliveries: u8,
    /// Since when neither `bytes` nor `deliveries` has changed.
    since: Instant,
    /// Whether rebalancing has, after `since`, asked the session to end. The session was not at rest, or it would have
    /// ended: perhaps it waits for an answer.
    was_asked: bool,
    /// Whether the session was, after `since`, asked to look for deliveries.
    has_looked: bool,
    /// Whether the session has found bytes on their way after the last change of `bytes`. If so, it is asked to look at
    /// each tick.
    is_watched: bool,
}

impl SeenSession {
    /// The remembered state of a session now, given its state before.
    fn new(record: &Record, before: Option<&Self>, now: Instant) -> Self {
        let (bytes, deliveries) = (record.bytes(), record.deliveries());
        match before {
            Some(before) if before.bytes == bytes && before.deliveries == deliveries => *before,
            _ => Self {
                bytes,
                deliveries,
                since: now,
                was_asked: false,
                has_looked: false,
                is_watched: before.is_some_and(|before| before.bytes == bytes),
            },
        }
    }
}

impl Retirement {
    fn tick(
        &mut self,
        rules: &HashMap<Arc<str>, PoolRetirement>,
        records: impl Iterator<Item = Arc<Record>>,
        now: Instant,
    ) {
        let mut seen = HashMap::new();
        let mut idle: HashMap<(Arc<str>, CountId), Vec<Arc<Record>>> = HashMap::new();
        let mut kept: HashMap<(Arc<str>, CountId), usize> = HashMap::new(); // how many were seen at the last tick, too
        for record in records {
            let Some((pool, server)) = record.relays_to() else {
                continue;
            };
            let Some(rule) = rules.get(&pool) else { continue };
            let before = self.seen.get(&record.id());
            // A session that its server has ended does not count as a session of this server.
            let counts_for_balance = rule.balance.is_some() && !record.has_server_ended();
            if before.is_some() && counts_for_balance {
                *kept.entry((Arc::clone(&pool), server)).or_default() += 1;
            }
            let mut session = SeenSession::new(&record, before, now);
            let is_idle = now - session.since >= rule.plan.idle_for;
            let is_half_way = now - session.since >= rule.plan.idle_for / 2;
            if !is_idle && (session.is_watched || is_half_way && !session.has_looked) {
                record.look_for_deliveries();
                session.has_looked = true;
            }
            seen.insert(record.id(), session);
            let max_age = rule.plan.max_age;
            match max_age.and_then(|max_age| age_limit(record.id(), max_age, record.age_on_server())) {
                Some(AgeLimit::ExceededByTenth) => {
                    record.cut(Ending::Aged);
                }
                Some(AgeLimit::Reached) if is_idle => record.end_at_rest(Ending::Aged),
                _ if is_idle && counts_for_balance => idle.entry((pool, server)).or_default().push(record),
                _ => {}
            }
        }
        self.seen = seen;
        self.observe(rules, &kept, now);
        self.rebalance(rules, idle, now);
    }

    /// Finds out which pools are to be rebalanced, and how far that has succeeded.
    fn observe(
        &mut self,
        rules: &HashMap<Arc<str>, PoolRetirement>,
        kept: &HashMap<(Arc<str>, CountId), usize>,
        now: Instant,
    ) {
        self.rebalancing.retain(|pool, _| {
            let balance = rules.get(pool).and_then(|rule| rule.balance.as_ref());
            balance.is_some_and(|(_, balance)| !balance.is_even())
        });
        for (pool, rule) in rules {
            let Some((over, balance)) = &rule.balance else { continue };
            if balance.is_uneven() && !self.rebalancing.contains_key(pool) {
                let begins = Rebalancing::new(*over, balance, now);
                self.rebalancing.insert(Arc::clone(pool), begins);
            }
            if let Some(rebalancing) = self.rebalancing.get_mut(pool) {
                let kept = |server| kept.get(&(Arc::clone(pool), server)).copied().unwrap_or_default();
                rebalancing.observe(balance, kept, |session| self.seen.contains_key(&session), now);
            }
        }
    }

    /// Ends the oldest idle sessions in excess, at the pace of each pool. Sessions that were asked before are asked
    /// last: sessions that wait for an answer are often the oldest, and would otherwise block the others for ever.
    fn rebalance(
        &mut self,
        rules: &HashMap<Arc<str>, PoolRetirement>,
        mut idle: HashMap<(Arc<str>, CountId), Vec<Arc<Record>>>,
        now: Instant,
    ) {
        for (pool, rebalancing) in &mut self.rebalancing {
            let rule = rules.get(pool).and_then(|rule| rule.balance.as_ref());
            let Some((over, balance)) = rule else { continue };
            let mut due = rebalancing.due(pool, *over, balance, now);
            for (server, excess) in &balance.excess {
                let mut sessions = idle.remove(&(Arc::clone(pool), *server)).unwrap_or_default();
                let was_asked = |id| self.seen.get(&id).is_some_and(|session| session.was_asked);
                sessions.sort_by_cached_key(|record| (was_asked(record.id()), record.id()));
                let count = due.min(*excess).min(sessions.len());
                due -= count;
                for record in &sessions[..count] {
                    record.end_at_rest(Ending::Rebalanced);
                    rebalancing.add_asked(record.id());
                    self.seen
                        .entry(record.id())
                        .and_modify(|session| session.was_asked = true);
                }
            }
        }
    }
}

/// How far a session is past its age limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AgeLimit {
    /// It ends as soon as it is at rest.
    Reached,
    /// By a tenth of `max_age` or more: it is cut, even if it is not at rest.
    ExceededByTenth,
}

/// Whether a session is too old. Each session has its own limit, 90 % to 110 % of `max_age`, drawn by its number.
fn age_limit(id: u64, max_age: Duration, age: Duration) -> Option<AgeLimit> {
    let drawn = (xxh3_64(&id.to_le_bytes()) % 2001) as u32; // 0 to 2000; 1000 gives a limit of `max_age`
    let limit = max_age * 9 / 10 + max_age / 10_000 * drawn;
    if age < limit {
        None
    } else if age < limit + max_age / 10 {
        Some(AgeLimit::Reached)
    } else {
        Some(AgeLimit::ExceededByTenth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn age_limits_are_drawn_evenly_within_ten_percent() {
        let minutes = |id| {
            let is_young = |minute: &u32| age_limit(id, HOUR, Duration::from_secs(60) * *minute).is_none();
            (0..).take_while(is_young).count()
        };
        let mut drawn = [0; 70];
        (0..1200).for_each(|id| drawn[minutes(id)] += 1);
        assert_eq!(drawn[..54], [0; 54]);
        assert_eq!(drawn[67..], [0; 3]);
        // 1200 limits in 12 minutes: about 100 in each.
        assert!(drawn[55..66].iter().all(|count| (60..150).contains(count)), "{drawn:?}");
    }

    #[test]
    fn a_session_is_cut_a_tenth_of_max_age_after_its_limit() {
        for id in 0..100 {
            let first = |wanted| (0..).find(|second| age_limit(id, HOUR, Duration::from_secs(*second)) == Some(wanted));
            let (old, cut) = (
                first(AgeLimit::Reached).unwrap(),
                first(AgeLimit::ExceededByTenth).unwrap(),
            );
            assert!((cut - old).abs_diff(360) <= 1, "{old} {cut}");
        }
    }
}
