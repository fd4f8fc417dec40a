//! A pool in force: its plan, its servers, and the addresses of the names among them.

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, Index};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use super::recorded_outcome::{RecordedOutcome, follow};
use crate::addr::ServerAddr;
use crate::plan::{HealthPlan, PoolId, PoolPlan};
use crate::pool::{
    CheckOutcome, CheckState, FallbackOrigin, Member, Pool, PoolRoles, Server, ServerFacts, ServerRegistry,
};

/// The addresses of host names, by the name and port as configured (`host:port`). A name of which no address is known is
/// not in it.
pub type NameAddresses = HashMap<Arc<str>, Vec<ServerAddr>>;

/// A pool in force. It dereferences to its servers and the choice among them.
#[derive(Debug)]
pub struct LivePool {
    plan: Arc<PoolPlan>,
    pool: Pool,
    roles: Arc<PoolRoles>,
    // A std mutex: locked for a few lines, and by no session.
    addresses: Mutex<NameAddresses>,
    /// Shared with the pools that it has replaced, and with those that will replace it.
    in_force: Arc<PoolInForce>,
    fallback_origin: Arc<FallbackOrigin>,
}

/// A pool and its successors in later plans: leads to the one in force. A session holds this instead of the pool that it
/// was routed to. So it does not keep an old plan, and reports its end to the pool that is in force then.
// A std mutex: locked for a line.
#[derive(Debug, Default)]
pub struct PoolInForce(Mutex<Weak<LivePool>>);

impl PoolInForce {
    /// The pool; `None` if a reload has removed it.
    #[must_use]
    pub fn get(&self) -> Option<Arc<LivePool>> {
        self.lock().upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Weak<LivePool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LivePool {
    /// A pool whose names have these addresses. A server that the registry knows stays the same.
    #[must_use]
    pub fn new(plan: Arc<PoolPlan>, addresses: NameAddresses, registry: &ServerRegistry) -> Self {
        let members = members(&plan, &addresses, registry);
        let fallback_origin = FallbackOrigin::new(Arc::clone(&plan.name));
        Self {
            pool: Pool::new(Arc::clone(&plan.name), plan.rules, members),
            roles: registry.roles(&plan.name),
            addresses: Mutex::new(addresses),
            plan,
            in_force: Arc::default(),
            fallback_origin,
        }
    }

    /// The pool of the next plan, which begins with the addresses that names have in `self`, and with those in `addresses`.
    pub(super) fn successor(
        &self,
        plan: Arc<PoolPlan>,
        mut addresses: NameAddresses,
        registry: &ServerRegistry,
    ) -> Self {
        self.hand_over(&plan, &mut addresses);
        let next = Self {
            in_force: Arc::clone(&self.in_force),
            fallback_origin: Arc::clone(&self.fallback_origin),
            ..Self::new(plan, addresses, registry)
        };
        if self.is_resolved() {
            next.mark_resolved();
        }
        next
    }

    /// Repeats what [`Self::successor`] did: names may have been resolved again since.
    pub(super) fn catch_up_with(&self, before: &Self, registry: &ServerRegistry) {
        if before.is_resolved() {
            self.mark_resolved();
        }
        let has_changed = before.hand_over(&self.plan, &mut self.lock());
        if has_changed {
            self.update_servers(registry);
        }
    }

    /// Copies the addresses of names that the next plan also has to `addresses`, as far as it wants their family. If the
    /// plans want different families, addresses of a name that are there already stay: they were looked up for the next
    /// plan. Returns whether anything changed.
    fn hand_over(&self, next: &PoolPlan, addresses: &mut NameAddresses) -> bool {
        let known = self.lock();
        let has_same_family = self.plan.resolve == next.resolve;
        let mut has_changed = false;
        for (entry, ..) in next.names() {
            let present = addresses.get(&entry.written);
            let Some(same) = known
                .get(&entry.written)
                .filter(|_| has_same_family || present.is_none())
            else {
                continue;
            };
            let wanted = same.iter().filter(|address| next.resolve.includes(address.ip()));
            let wanted: Vec<_> = wanted.copied().collect();
            if !wanted.is_empty() && present != Some(&wanted) {
                addresses.insert(Arc::clone(&entry.written), wanted);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Replaces the addresses of these names. Addresses of a family that the plan does not want are ignored.
    pub(super) fn set_addresses(&self, found: NameAddresses, registry: &ServerRegistry) {
        let mut addresses = self.lock();
        for (name, mut found) in found {
            found.retain(|address| self.plan.resolve.includes(address.ip()));
            if !found.is_empty() {
                addresses.insert(name, found);
            }
        }
        drop(addresses);
        self.update_servers(registry);
        self.update_checked();
    }

    /// Judges the result of a check of one of its servers, `Err` for one that did not pass, and records what follows.
    pub fn record_check(
        &self,
        server: &Arc<Server>,
        result: Result<ServerFacts, CheckOutcome>,
    ) -> Vec<RecordedOutcome> {
        let HealthPlan {
            required, thresholds, ..
        } = self.plan.health;
        let members = self.servers();
        let mut recorded = Vec::new();
        let judgement = match result {
            Ok(facts) => self.roles.judge(server, &facts, &members, required, Instant::now()),
            Err(outcome) => {
                recorded.push(RecordedOutcome::record(server, outcome, thresholds));
                self.roles.note_failure(server, &members, required)
            }
        };
        recorded.extend(follow(judgement, self.name(), &self.roles, thresholds));
        recorded
    }

    /// Makes a server that calls itself primary the primary of the pool, because an operator says so. `None`: it does not
    /// call itself one.
    #[must_use]
    pub fn trust(&self, server: &str) -> Option<Vec<RecordedOutcome>> {
        let judgement = self.roles.trust(server, &self.servers(), self.plan.health.required)?;
        let thresholds = self.plan.health.thresholds;
        Some(follow(judgement, self.name(), &self.roles, thresholds).collect())
    }

    /// What is known of the roles of its servers.
    #[must_use]
    pub fn roles(&self) -> &PoolRoles {
        &self.roles
    }

    fn update_servers(&self, registry: &ServerRegistry) {
        let members = members(&self.plan, &self.lock(), registry);
        self.replace_servers(members);
    }

    /// Puts this pool in force: sessions find it, and its servers know whether they are checked from now on.
    pub(super) fn put_in_force(self: &Arc<Self>) {
        *self.in_force.lock() = Arc::downgrade(self);
        self.update_checked();
    }

    /// How sessions find the pool that will be in force at their end.
    #[must_use]
    pub fn in_force(&self) -> &Arc<PoolInForce> {
        &self.in_force
    }

    /// What its sessions on its fallback hold.
    #[must_use]
    pub fn fallback_origin(&self) -> &Arc<FallbackOrigin> {
        &self.fallback_origin
    }

    /// Whether there may be sessions on its fallback: something besides the pool and its successors holds their origin.
    #[must_use]
    pub fn has_fallback_sessions(&self) -> bool {
        Arc::strong_count(&self.fallback_origin) > 1
    }

    /// Tells the servers whether they are checked from now on.
    fn update_checked(&self) {
        let is_checked = self.plan.is_checked();
        for server in self.servers().iter() {
            server.set_checked(is_checked);
        }
    }

    /// What is configured.
    #[must_use]
    pub fn plan(&self) -> &Arc<PoolPlan> {
        &self.plan
    }

    /// The addresses of a name, written as configured; empty as long as none is known.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<ServerAddr> {
        self.lock().get(name).cloned().unwrap_or_default()
    }

    /// The names of which no address is known, as configured.
    #[must_use]
    pub fn unresolved(&self) -> Vec<Arc<str>> {
        let addresses = self.lock();
        let names = self.plan.names().map(|(entry, ..)| &entry.written);
        names
            .filter(|name| !addresses.contains_key(*name))
            .map(Arc::clone)
            .collect()
    }

    /// What the pool waits for before it is ready; `None`: it is.
    pub(super) fn waits_for(&self, needs_address: bool) -> Option<String> {
        let name = self.name();
        let servers = self.servers();
        if servers.is_empty() && needs_address || self.plan.has_names() && !self.is_resolved() {
            let unresolved = self.unresolved();
            let unresolved = unresolved
                .first()
                .map_or_else(String::new, |written| format!(": `{written}` is not resolved yet"));
            return Some(format!("an address of pool `{name}`{unresolved}"));
        }
        let is_unchecked = |server: &&Member| server.check_state() == CheckState::Unchecked && !server.is_disabled();
        let unchecked = servers.iter().find(is_unchecked)?;
        Some(format!(
            "the first checks: `{}` of pool `{name}`",
            unchecked.spec().label
        ))
    }

    fn lock(&self) -> MutexGuard<'_, NameAddresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for LivePool {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

/// The servers of a pool's entries, as far as their addresses are known.
fn members(plan: &PoolPlan, addresses: &NameAddresses, registry: &ServerRegistry) -> Vec<Member> {
    let mut seen = HashSet::new();
    let mut members = Vec::new();
    for entry in &plan.entries {
        let resolved = addresses.get(&entry.written).into_iter().flatten();
        let specs = match entry.fixed() {
            Some(fixed) => vec![fixed],
            None => resolved.map(|address| entry.resolved(*address)).collect(),
        };
        for spec in specs {
            // An address of two names of a pool is one server: it has one load and one health.
            if seen.insert((Arc::clone(&spec.identity), spec.address)) {
                let server = registry.get_or_create(&plan.name, spec, plan.is_checked());
                members.push(Member::new(server, entry.member_config));
            }
        }
    }
    members
}

/// The pools in force, in the order of their plan.
#[derive(Clone, Debug)]
pub struct LivePools {
    in_order: Arc<[Arc<LivePool>]>,
    /// By pool: the one that is used while it has no usable server.
    fallbacks: Arc<[Option<PoolId>]>,
}

impl LivePools {
    /// The pool whose servers sessions of this one get now: the pool itself or, while it has no usable server, the first of
    /// its fallbacks that has one.
    #[must_use]
    pub fn serving(&self, id: PoolId, now: Instant) -> PoolId {
        let mut serving = id;
        // Bounded: fallbacks form no cycle.
        while !self[serving].is_usable(now) {
            match self.fallbacks[serving.0] {
                Some(fallback) => serving = fallback,
                None => return id,
            }
        }
        serving
    }

    /// The pools that have a fallback, each with the one that serves its sessions now.
    pub fn with_fallback(&self, now: Instant) -> impl Iterator<Item = (&Arc<LivePool>, &Arc<LivePool>)> {
        let has_fallback = |(_, fallback): &(usize, &Option<PoolId>)| fallback.is_some();
        let ids = self.fallbacks.iter().enumerate().filter(has_fallback);
        ids.map(move |(index, _)| (&self.in_order[index], &self[self.serving(PoolId(index), now)]))
    }
}

impl FromIterator<Arc<LivePool>> for LivePools {
    fn from_iter<I: IntoIterator<Item = Arc<LivePool>>>(pools: I) -> Self {
        let in_order: Arc<[Arc<LivePool>]> = pools.into_iter().collect();
        let index = |(index, pool): (usize, &Arc<LivePool>)| (Arc::clone(pool.name()), PoolId(index));
        let ids: HashMap<_, _> = in_order.iter().enumerate().map(index).collect();
        let fallback = |pool: &Arc<LivePool>| ids.get(pool.plan.fallback.as_ref()?).copied();
        Self {
            fallbacks: in_order.iter().map(fallback).collect(),
            in_order,
        }
    }
}

impl Index<PoolId> for LivePools {
    type Output = Arc<LivePool>;

    fn index(&self, id: PoolId) -> &Arc<LivePool> {
        &self.in_order[id.0]
    }
}

impl Deref for LivePools {
    type Target = [Arc<LivePool>];

    fn deref(&self) -> &[Arc<LivePool>] {
        &self.in_order
    }
}
