//! The host names of a pool's servers, and the addresses that they resolve to.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::resolver::{LookupResult, Resolver};
use crate::addr::{IpFamily, ServerAddr, is_of_one_host};
use crate::error::chain;
use crate::live::{Live, LivePool, NameAddresses};
use crate::plan::{Plan, PoolPlan, names_of};
use crate::text::Reason;

/// A lookup that has no answer after this time counts as failed; the last known addresses stay.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The time between the first failure and the next lookup of a name without a known address. It doubles with each
/// failure, up to the pool's `resolve_interval`.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The most addresses of one name that are used. A name with more is a mistake, or its answer is wrong. Then the lowest
/// are used, which are the same whatever the order of the answer.
const ADDRESSES_MAX: usize = 256;

/// The host names of one pool: when each is looked up, and its state.
#[derive(Default)]
pub struct PoolNames {
    /// By the name and port as configured (`host:port`).
    names: HashMap<Arc<str>, NameState>,
    /// The lookups under way. When a name leaves the pool, its lookup is aborted.
    lookups: JoinSet<(Arc<str>, LookupResult)>,
    /// The family of the addresses that are looked up.
    family: IpFamily,
}

/// The state of one name.
struct NameState {
    /// The host that is looked up.
    host: Box<str>,
    port: u16,
    /// Its lookup, if one is under way.
    lookup: Option<AbortHandle>,
    /// Without a lookup: when the next lookup begins. During a lookup: when the lookup counts as failed; `None` from
    /// then on. A late answer is used all the same, and no other lookup begins before it has come.
    deadline: Option<Instant>,
    /// The wait between a failure and the next lookup, as long as no address is known; `resolve_interval` bounds it.
    retry: Duration,
    /// Whether its last lookup was prompt ([`LookupResult::is_prompt`]), or there was none.
    was_prompt: bool,
    /// Whether its last lookup succeeded; `None`: no lookup has ended or timed out yet. A change is logged.
    resolves: Option<bool>,
    /// Whether the name has more than [`ADDRESSES_MAX`] usable addresses. A log record says when this becomes true.
    has_too_many: bool,
}

/// The addresses of a name, sorted, or why there are none.
type Resolution = Result<Vec<ServerAddr>, Reason>;

/// The end of a lookup: the id of its task, the name, and the result. The error: it was aborted, or has panicked.
type EndedLookup = Result<(Id, (Arc<str>, LookupResult)), JoinError>;

impl PoolNames {
    /// Follows the names that the servers of the pool have now. New names are looked up at once; if the address family
    /// has changed, all names are looked up again.
    pub fn adopt(&mut self, pool: &LivePool) {
        let plan = pool.plan();
        if self.family != plan.resolve {
            self.family = plan.resolve;
            self.names.clear();
            self.lookups.abort_all();
        }
        let now = Instant::now();
        let entries = pool.entries();
        let wanted: HashSet<&str> = names_of(&entries).map(|(entry, ..)| &*entry.written).collect();
        self.names.retain(|name, state| {
            let is_wanted = wanted.contains(&**name);
            if !is_wanted && let Some(lookup) = &state.lookup {
                lookup.abort();
            }
            is_wanted
        });
        for (entry, host, port) in names_of(&entries) {
            let name = Arc::clone(&entry.written);
            self.names
                .entry(name)
                .or_insert_with(|| NameState::new(host, port, now));
        }
        for state in self.names.values_mut().filter(|state| state.lookup.is_none()) {
            let latest = now + plan.resolve_interval; // it may be shorter than before
            state.deadline = state.deadline.map(|deadline| deadline.min(latest));
        }
        self.mark_if_resolved(pool);
    }

    /// Waits for the next event, and handles it: a name is due, a lookup has ended, or a lookup has failed because it
    /// took too long. Returns whether addresses have changed: then servers of the pool may have been added or removed.
    /// Cancel safe.
    ///
    /// A name that does not resolve any more keeps its last addresses; that is logged once.
    pub async fn step(&mut self, pool: &LivePool, resolver: &Resolver, live: &Live) -> bool {
        let deadline = self.names.values().filter_map(|state| state.deadline).min();
        let until_deadline = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            biased; // an answer at the last moment counts
            Some(ended) = self.lookups.join_next_with_id() => self.finish_lookups(pool, ended),
            () = until_deadline => {
                self.handle_deadlines(pool, resolver);
                NameAddresses::new()
            }
        };
        let has_changed = !changed.is_empty();
        if has_changed {
            live.set_addresses(pool.name(), changed);
        }
        self.mark_if_resolved(pool);
        has_changed
    }

    /// Starts the lookups that are due, and lets those whose time is over count as failed.
    fn handle_deadlines(&mut self, pool: &LivePool, resolver: &Resolver) {
        let now = Instant::now();
        for (name, state) in &mut self.names {
            let has_reached_deadline = state.deadline.is_some_and(|deadline| deadline <= now);
            if !has_reached_deadline {
                continue;
            }
            if state.lookup.is_some() {
                state.deadline = None;
                state.record(pool, name, Err(Reason::new("the resolver does not answer")));
            } else {
                let name = Arc::clone(name);
                let lookup = resolver.resolve(&state.host, state.port, self.family, state.was_prompt);
                state.lookup = Some(self.lookups.spawn(async move { (name, lookup.await) }));
                state.deadline = Some(now + LOOKUP_TIMEOUT);
            }
        }
    }

    /// Records the result of a lookup, and of all others that have ended by now. Returns the addresses that have
    /// changed.
    fn finish_lookups(&mut self, pool: &LivePool, first: EndedLookup) -> NameAddresses {
        let mut next = Some(first);
        let mut changed = NameAddresses::new();
        while let Some(ended) = next {
            // The result of an aborted lookup is ignored, even if it came before the lookup could be aborted.
            if let Ok((id, (name, result))) = ended
                && let Some(state) = self.names.get_mut(&name)
                && state.lookup.take_if(|lookup| lookup.id() == id).is_some()
            {
                state.was_prompt = result.is_prompt;
                let addresses = state.record(pool, &name, usable_addresses(result.addresses));
                let is_known = addresses.is_some() || !pool.addresses(&name).is_empty();
                state.schedule(pool.plan(), is_known);
                changed.extend(addresses.map(|addresses| (name, addresses)));
            }
            next = self.lookups.try_join_next_with_id();
        }
        changed
    }

    /// Marks the pool as resolved if each of its names was looked up, with or without success.
    fn mark_if_resolved(&self, pool: &LivePool) {
        if self.names.values().all(|state| state.resolves.is_some()) {
            pool.mark_resolved();
        }
    }
}

impl NameState {
    /// For a name that was never looked up, and is to be looked up now.
    fn new(host: &str, port: u16, now: Instant) -> Self {
        Self {
            host: host.into(),
            port,
            lookup: None,
            deadline: Some(now),
            retry: RETRY_FIRST,
            was_prompt: true,
            resolves: None,
            has_too_many: false,
        }
    }

    /// Sets when the name is looked up next. `is_known`: whether the pool has an address of the name.
    fn schedule(&mut self, pool: &PoolPlan, is_known: bool) {
        let longest = pool.resolve_interval;
        let gap = if is_known {
            self.retry = RETRY_FIRST;
            longest
        } else {
            let gap = self.retry.min(longest);
            self.retry = (2 * gap).max(RETRY_FIRST);
            gap
        };
        self.deadline = Some(Instant::now() + gap);
    }

    /// Records the outcome of a lookup, and logs what has changed. Returns the addresses if they have changed.
    fn record(&mut self, pool: &LivePool, name: &str, resolution: Resolution) -> Option<Vec<ServerAddr>> {
        let addresses_before = pool.addresses(name);
        let pool = &**pool.name();
        let resolved_before = self.resolves.replace(resolution.is_ok());
        let mut addresses = match resolution {
            Ok(addresses) => addresses,
            Err(error) => {
                if resolved_before != Some(false) {
                    let (kept, error) = (addresses_before.len(), &*error);
                    tracing::warn!(
                        pool,
                        name,
                        error,
                        kept,
                        "cannot resolve the name, keeping its last addresses"
                    );
                }
                return None;
            }
        };
        let found = addresses.len();
        addresses.truncate(ADDRESSES_MAX);
        let used = addresses.len();
        if found > used && !self.has_too_many {
            tracing::warn!(
                pool,
                name,
                found,
                used,
                "the name has too many addresses, using the lowest"
            );
        }
        self.has_too_many = found > used;
        let has_changed = addresses_before != addresses;
        if resolved_before != Some(true) || has_changed {
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            tracing::info!(pool, name, addresses = texts.join(", "), "resolved");
        }
        has_changed.then_some(addresses)
    }
}

/// Looks up the names of the next plan that are new in their pools, so that the plan begins with the addresses that are
/// known by `deadline`. Other names keep the addresses that their pools have found. Returns the addresses by pool.
pub async fn resolve_new_names(
    next: &Plan,
    current: &Plan,
    resolver: &Resolver,
    deadline: Instant,
) -> HashMap<Arc<str>, NameAddresses> {
    let mut lookups = Vec::new();
    for pool in &next.pools {
        let present = current.pool(&pool.name);
        // With another address family, all names are looked up again.
        let same_family = present.filter(|present| present.resolve == pool.resolve);
        let known: HashSet<&str> = same_family
            .iter()
            .flat_map(|present| present.names().map(|(entry, ..)| &*entry.written))
            .collect();
        for (entry, host, port) in pool.names().filter(|(entry, ..)| !known.contains(&*entry.written)) {
            let was_prompt = true; // no earlier lookup in this family
            let lookup = tokio::spawn(resolver.resolve(host, port, pool.resolve, was_prompt));
            lookups.push((pool, entry, AbortOnDropHandle::new(lookup)));
        }
    }
    let mut found = HashMap::<_, NameAddresses>::new();
    for (pool, entry, lookup) in lookups {
        // Even after the deadline, `timeout_at` returns a result that is ready: a slow name does not affect others.
        if let Ok(Ok(result)) = timeout_at(deadline, lookup).await
            && let Ok(mut addresses) = usable_addresses(result.addresses)
        {
            addresses.truncate(ADDRESSES_MAX);
            let of_pool = found.entry(Arc::clone(&pool.name)).or_default();
            of_pool.insert(Arc::clone(&entry.written), addresses);
        }
    }
    found
}

/// The addresses that were found, sorted and without duplicates: resolvers rotate their answers. Unspecified,
/// multicast and broadcast addresses are left out: resolvers that block a name answer 0.0.0.0, and that would send
/// clients to this machine.
fn usable_addresses(found: io::Result<Vec<SocketAddr>>) -> Resolution {
    let addresses = found.map_err(|error| Reason::from(chain(&error)))?;
    if addresses.is_empty() {
        return Err(Reason::new("the name has no address"));
    }
    let (usable, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| is_of_one_host(address.ip()));
    if let ([], Some(other)) = (&usable[..], others.first()) {
        let message = format!(
            "the name has only addresses that are not of one host, such as {}",
            other.ip()
        );
        return Err(Reason::new(&message));
    }
    let mut addresses: Vec<ServerAddr> = usable.into_iter().map(ServerAddr::new).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests;
