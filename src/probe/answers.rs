//! Names of servers -> their addresses.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::resolve::{Found, Resolver};
use crate::addr::{IpFamily, ServerAddr, ServerLocation};
use crate::plan::{Plan, PoolPlan, ServerEntry};
use crate::pool::Roster;
use crate::text::Reason;

/// How long answers are waited for; a name without one by then has failed, and its last answer stays.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long after its first failure a name is looked up again of which no address is known; the gap doubles from failure to
/// failure, up to the pool's `resolve_interval`.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Addresses of one name that are used: more would be a mistake, or somebody else's DNS. Of more these are the first
/// in the order of addresses, the same whatever order they come in.
const ADDRESSES_MAX: usize = 256;

/// What has been asked about the names of one pool, and what has been said.
pub(super) struct Answers {
    names: HashMap<Arc<str>, Answer>,
    /// The lookups under way. One of a name that is no longer in the pool is aborted.
    lookups: JoinSet<(Arc<str>, Found)>,
    /// What is looked up.
    family: IpFamily,
}

/// What is known of one name.
struct Answer {
    /// Where it is among the pool's entries.
    entries: Vec<usize>,
    /// Its lookup, if one is under way.
    lookup: Option<AbortHandle>,
    /// When it is looked up next or, while it is, when it has failed without an answer. `None`: it has, and the answer
    /// counts whenever it is there; until then it is not asked again.
    alarm: Option<Instant>,
    /// How long after a failure it is looked up again, as long as no address of it is known.
    retry: Duration,
    /// Whether its last lookup was answered soon, or there was none.
    was_prompt: bool,
    /// Whether the name resolved when last asked for, and that has been said.
    resolves: Option<bool>,
    /// Whether it has more addresses than are used, and that has been said.
    crowded: bool,
}

/// Where a name is, or why that cannot be told.
type Told = Result<Vec<ServerAddr>, Reason>;

impl Answers {
    /// Of no pool yet.
    pub(super) fn new() -> Self {
        Self {
            names: HashMap::new(),
            lookups: JoinSet::new(),
            family: IpFamily::default(),
        }
    }

    /// Goes by this plan of the pool from now on. Names that were never asked for are, at once; if other addresses are
    /// wanted, all are.
    pub(super) fn adopt(&mut self, pool: &PoolPlan) {
        if self.family != pool.resolve {
            self.family = pool.resolve;
            self.names.clear();
            self.lookups.abort_all();
        }
        let now = Instant::now();
        self.names.values_mut().for_each(|answer| answer.entries.clear());
        for (index, entry) in pool.entries.iter().enumerate() {
            if entry.fixed().is_none() {
                let name = Arc::clone(&entry.written);
                let answer = self.names.entry(name).or_insert_with(|| Answer::due(now));
                answer.entries.push(index);
            }
        }
        self.names.retain(|_, answer| {
            let is_gone = answer.entries.is_empty();
            if let (true, Some(lookup)) = (is_gone, &answer.lookup) {
                lookup.abort();
            }
            !is_gone
        });
        for answer in self.names.values_mut().filter(|answer| answer.lookup.is_none()) {
            let latest = now + pool.resolve_interval; // it may have become shorter
            answer.alarm = answer.alarm.map(|alarm| alarm.min(latest));
        }
        self.mark_if_all_are_told(pool);
    }

    /// Waits for what comes next, and does it: asks for the names that are due; takes in what is said of one as soon as
    /// it is said; finds that nothing was said for too long. Returns whether servers have come or gone. Cancel safe.
    ///
    /// A name that does not resolve keeps its last answer; that is said once per change.
    pub(super) async fn step(&mut self, pool: &PoolPlan, resolver: &Resolver, roster: &Roster) -> bool {
        let alarm = self.names.values().filter_map(|answer| answer.alarm).min();
        let wakes_up = async {
            match alarm {
                Some(alarm) => sleep_until(alarm).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            biased; // what is said at the last moment counts
            Some(answered) = self.lookups.join_next_with_id() => self.take_answers(pool, answered),
            () = wakes_up => self.wake_up(pool, resolver),
        };
        if changed {
            pool.settle(roster);
        }
        self.mark_if_all_are_told(pool);
        changed
    }

    /// Asks for the names that are due; those that were asked for and not answered have failed. Whether a name is
    /// elsewhere now.
    fn wake_up(&mut self, pool: &PoolPlan, resolver: &Resolver) -> bool {
        let now = Instant::now();
        let mut changed = false;
        for (name, answer) in &mut self.names {
            if answer.alarm.is_none_or(|alarm| alarm > now) {
                continue;
            }
            if answer.lookup.is_some() {
                answer.alarm = None;
                changed |= answer.take_in(pool, name, Err(Reason::new("the resolver does not answer")));
            } else if let ServerLocation::Name { host, port } = &answer.entry(pool).location {
                let (name, asked) = (
                    Arc::clone(name),
                    resolver.ask(host, *port, pool.resolve, answer.was_prompt),
                );
                answer.lookup = Some(self.lookups.spawn(async move { (name, asked.await) }));
                answer.alarm = Some(now + PATIENCE);
            }
        }
        changed
    }

    /// Takes in what is said, with all that has been said meanwhile. Whether a name is elsewhere now.
    fn take_answers(&mut self, pool: &PoolPlan, first: Answered) -> bool {
        let mut next = Some(first);
        let mut changed = false;
        while let Some(answered) = next {
            // Those that were aborted say nothing; and one that was answered before it could be is not asked for.
            if let Ok((id, (name, found))) = answered
                && let Some(answer) = self.names.get_mut(&name)
                && answer.lookup.take_if(|lookup| lookup.id() == id).is_some()
            {
                answer.was_prompt = found.is_prompt;
                changed |= answer.take_in(pool, &name, in_order(found.addresses));
                answer.schedule(pool);
            }
            next = self.lookups.try_join_next_with_id();
        }
        changed
    }

    fn mark_if_all_are_told(&self, pool: &PoolPlan) {
        if self.names.values().all(|answer| answer.resolves.is_some()) {
            pool.pool.mark_resolved();
        }
    }
}

/// The end of a lookup.
type Answered = Result<(Id, (Arc<str>, Found)), JoinError>;

impl Answer {
    /// Of a name that was never asked for, and is at this time.
    fn due(at: Instant) -> Self {
        Self {
            entries: Vec::new(),
            lookup: None,
            alarm: Some(at),
            retry: RETRY_FIRST,
            was_prompt: true,
            resolves: None,
            crowded: false,
        }
    }

    /// One of its entries; all are at the same addresses.
    fn entry<'a>(&self, pool: &'a PoolPlan) -> &'a ServerEntry {
        let entry = self.entries.first().expect("a name without an entry is not kept");
        &pool.entries[*entry]
    }

    /// Sets when it is looked up next.
    fn schedule(&mut self, pool: &PoolPlan) {
        let longest = pool.resolve_interval;
        let gap = if self.entry(pool).addresses.load().is_empty() {
            let gap = self.retry.min(longest);
            self.retry = (2 * gap).max(RETRY_FIRST);
            gap
        } else {
            self.retry = RETRY_FIRST;
            longest
        };
        self.alarm = Some(Instant::now() + gap);
    }

    /// Whether the name is elsewhere now.
    fn take_in(&mut self, pool: &PoolPlan, name: &str, told: Told) -> bool {
        let before = self.entry(pool).addresses.load_full();
        let Some(now) = self.elsewhere(pool.pool.name(), name, &before, told) else {
            return false;
        };
        let now = Arc::new(now);
        for entry in &self.entries {
            pool.entries[*entry].addresses.store(Arc::clone(&now));
        }
        true
    }

    /// Where the name is now, unless that is where it was.
    fn elsewhere(&mut self, pool: &str, name: &str, before: &[ServerAddr], told: Told) -> Option<Vec<ServerAddr>> {
        let did_resolve = self.resolves.replace(told.is_ok());
        let mut addresses = match told {
            Ok(addresses) => addresses,
            Err(error) => {
                if did_resolve != Some(false) {
                    let kept = before.len();
                    tracing::warn!(
                        pool,
                        name,
                        error = &*error,
                        kept,
                        "cannot resolve, keeping the last answer"
                    );
                }
                return None;
            }
        };
        let found = addresses.len();
        addresses.truncate(ADDRESSES_MAX);
        let used = addresses.len();
        if found > used && !self.crowded {
            tracing::warn!(pool, name, found, used, "a name with too many addresses");
        }
        self.crowded = found > used;
        if did_resolve != Some(true) || *before != *addresses {
            tracing::info!(pool, name, ?addresses, "resolved");
        }
        (*before != *addresses).then_some(addresses)
    }
}

/// Asks for the names of a plan that is to follow this one, if they are new in their pools, so that it begins with what
/// is said of them by then. For the others its pools ask again.
pub(super) async fn ask_ahead(next: &Plan, now: &Plan, resolver: &Resolver, deadline: Instant) {
    let mut asked = Vec::new();
    for pool in &next.pools {
        let before = now.pool(pool.pool.name());
        let before = before.filter(|before| before.resolve == pool.resolve);
        let known: HashSet<&str> = before
            .iter()
            .flat_map(|before| before.names().map(|(entry, ..)| &*entry.written))
            .collect();
        for (entry, host, port) in pool.names().filter(|(entry, ..)| !known.contains(&*entry.written)) {
            let lookup = tokio::spawn(resolver.ask(host, port, pool.resolve, true));
            asked.push((entry, AbortOnDropHandle::new(lookup)));
        }
    }
    for (entry, lookup) in asked {
        // What is there counts also after the deadline, so that one that is late takes nothing from those behind it.
        if let Ok(Ok(found)) = timeout_at(deadline, lookup).await
            && let Ok(mut addresses) = in_order(found.addresses)
        {
            addresses.truncate(ADDRESSES_MAX);
            entry.addresses.store(Arc::new(addresses));
        }
    }
}

/// What the resolver says, in an order that does not change: resolvers turn their answers.
fn in_order(found: io::Result<Vec<SocketAddr>>) -> Told {
    let addresses = found.map_err(|error| Reason::from(error.to_string()))?;
    if addresses.is_empty() {
        return Err(Reason::new("the name has no address"));
    }
    let mut addresses: Vec<ServerAddr> = addresses.into_iter().map(ServerAddr::new).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests;
