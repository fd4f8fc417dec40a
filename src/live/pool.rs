//! A pool in force: its plan, its servers, and the addresses of those that are configured by host name.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;

use super::departed::DepartedServers;
use super::dynamic::DynamicServers;
use super::members::{NameAddresses, members};
use crate::addr::ServerAddr;
use crate::plan::{Fallback, PoolPlan, ServerEntry, names_of};
use crate::pool::{
    ActiveChecks, CheckState, FallbackOrigin, LeftOutServer, Member, Pool, PoolRoles, Server, ServerId, ServerPath,
    ServerRegistry,
};
use crate::scale::PoolScale;

/// A pool in force. It dereferences to [`Pool`]: its servers, and the choice among them.
#[derive(Debug)]
pub struct LivePool {
    plan: Arc<PoolPlan>,
    pool: Pool,
    roles: Arc<PoolRoles>,
    // A blocking mutex: locked for a few lines, and by no session.
    addresses: Mutex<NameAddresses>,
    /// The servers that are left out because they are our own listeners, which lead to this pool.
    // A blocking mutex: locked for a line.
    left_out: Mutex<Vec<LeftOutServer>>,
    /// The entries of its plan, those of its source or its clones, and those that operators have added.
    entries: watch::Sender<Arc<[ServerEntry]>>,
    // Each field from here on is shared with the pools that this one has replaced, and those that will replace it.
    dynamic: Arc<DynamicServers>,
    pub(super) departed: Arc<DepartedServers>,
    in_force: Arc<PoolInForce>,
    fallback_origin: Arc<FallbackOrigin>,
    /// The status of its clones.
    scale: Arc<PoolScale>,
}

/// Leads to the pool in force. A pool and all its successors in later plans share this value. A session holds this
/// value instead of the pool to which it was routed. So the session does not keep an old plan in memory, and reports
/// its end to the pool that is in force at that moment.
// A blocking mutex: locked for a line.
#[derive(Debug, Default)]
pub struct PoolInForce(Mutex<Weak<LivePool>>);

impl PoolInForce {
    /// The pool; `None` once a reload has removed it and nothing holds it any more.
    #[must_use]
    pub fn get(&self) -> Option<Arc<LivePool>> {
        self.lock().upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Weak<LivePool>> {
        self.0.lock()
    }
}

impl LivePool {
    /// A pool whose names have these addresses. A server that the registry knows is used again.
    #[must_use]
    pub fn new(plan: Arc<PoolPlan>, addresses: NameAddresses, registry: &ServerRegistry) -> Self {
        Self::with_entries(Arc::clone(&plan.entries), plan, addresses, Arc::default(), registry)
    }

    fn with_entries(
        entries: Arc<[ServerEntry]>,
        plan: Arc<PoolPlan>,
        addresses: NameAddresses,
        dynamic: Arc<DynamicServers>,
        registry: &ServerRegistry,
    ) -> Self {
        let (members, left_out) = members(&plan, &entries, &addresses, registry);
        let fallback_origin = FallbackOrigin::new(Arc::clone(&plan.name));
        Self {
            pool: Pool::with_queue(Arc::clone(&plan.name), plan.rules, members, registry.queue(&plan.name)),
            roles: registry.roles(&plan.name),
            addresses: Mutex::new(addresses),
            left_out: Mutex::new(left_out),
            entries: watch::Sender::new(entries),
            dynamic,
            departed: Arc::default(),
            plan,
            in_force: Arc::default(),
            fallback_origin,
            scale: Arc::default(),
        }
    }

    /// The pool of the next plan. It begins with the addresses that names have in `self`, and with those in
    /// `addresses`.
    pub(super) fn successor(
        &self,
        plan: Arc<PoolPlan>,
        mut addresses: NameAddresses,
        registry: &ServerRegistry,
    ) -> Self {
        let entries = self.dynamic.entries_after(&plan, &self.plan);
        self.hand_over(&plan, &entries, &mut addresses);
        let next = Self {
            departed: Arc::clone(&self.departed),
            in_force: Arc::clone(&self.in_force),
            fallback_origin: Arc::clone(&self.fallback_origin),
            scale: Arc::clone(&self.scale),
            ..Self::with_entries(entries, plan, addresses, Arc::clone(&self.dynamic), registry)
        };
        if self.is_resolved() {
            next.mark_resolved();
        }
        next
    }

    /// Repeats what [`Self::successor`] did, with the present state of `before`, the pool that this one replaces: since
    /// then names may have been resolved again, and the source may have listed other servers.
    pub(super) fn catch_up_with(&self, before: &Self, registry: &ServerRegistry) {
        if before.is_resolved() {
            self.mark_resolved();
        }
        self.dynamic.take_over(&self.plan, &before.plan);
        let entries = self.dynamic.entries(&self.plan);
        let has_changed = before.hand_over(&self.plan, &entries, &mut self.addresses.lock());
        if has_changed || *self.entries.borrow() != entries {
            self.update_entries(entries, before, registry); // notes departures, too
        } else {
            self.note_departures(before, &self.servers());
        }
    }

    /// Takes over the servers that are listed now, and those that operators have added. The previous list is kept while
    /// no server of the latest can be used. Returns whether it is dropped now.
    pub(super) fn update_dynamic_servers(&self, registry: &ServerRegistry) -> bool {
        let has_released = self.release_kept(registry);
        self.update_entries(self.dynamic.entries(&self.plan), self, registry);
        has_released
    }

    /// Updates its servers, and then replaces its entries, which notifies the subscribers. `before`: this pool, or the
    /// one that it replaces.
    pub(super) fn update_entries(&self, entries: Arc<[ServerEntry]>, before: &Self, registry: &ServerRegistry) {
        let names: HashSet<&str> = names_of(&entries).map(|(entry, ..)| &*entry.written).collect();
        self.addresses.lock().retain(|name, _| names.contains(&**name));
        self.update_servers(&entries, before, registry);
        self.entries.send_replace(entries);
    }

    /// Copies this pool's addresses of names in `entries` to `addresses`, except those of a family that the next plan
    /// does not want. If the plans want different families, a name that has addresses in `addresses` keeps them: they
    /// were looked up for the next plan. Returns whether `addresses` has changed.
    fn hand_over(&self, next: &PoolPlan, entries: &[ServerEntry], addresses: &mut NameAddresses) -> bool {
        let known = self.addresses.lock();
        let has_same_family = self.plan.resolve == next.resolve;
        let mut has_changed = false;
        for (entry, ..) in names_of(entries) {
            let present = addresses.get(&entry.written);
            if present.is_some() && !has_same_family {
                continue;
            }
            let of_name = known.get(&entry.written).into_iter().flatten();
            let wanted = of_name.filter(|address| address.ip().is_some_and(|ip| next.resolve.includes(ip)));
            let wanted: Vec<_> = wanted.copied().collect();
            if !wanted.is_empty() && present != Some(&wanted) {
                addresses.insert(Arc::clone(&entry.written), wanted);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Replaces the addresses of these names. Addresses of a family that the plan does not want are ignored. A name
    /// without addresses of a wanted family in `found` keeps its present ones. Returns whether a kept list is dropped,
    /// as [`Self::update_dynamic_servers`] does: a server of the latest list may be usable with the new addresses.
    pub(super) fn set_addresses(&self, found: NameAddresses, registry: &ServerRegistry) -> bool {
        let mut addresses = self.addresses.lock();
        for (name, mut wanted) in found {
            wanted.retain(|address| address.ip().is_some_and(|ip| self.plan.resolve.includes(ip)));
            if !wanted.is_empty() {
                addresses.insert(name, wanted);
            }
        }
        drop(addresses);
        let has_released = self.release_kept(registry);
        match has_released {
            true => self.update_entries(self.dynamic.entries(&self.plan), self, registry),
            false => self.update_servers(&self.entries(), self, registry),
        }
        has_released
    }

    /// The name of what stands in for this pool now: another pool, or the primary in place of replicas; `None`: nothing
    /// does. `serving`: the pool that serves new sessions of this one now, which may be this pool itself.
    #[must_use]
    pub fn fallback_in_use(&self, serving: &Self, now: Instant) -> Option<Arc<str>> {
        if serving.name() != self.name() {
            return Some(Arc::clone(serving.name()));
        }
        self.is_on_stand_in(now)
            .then(|| self.roles.primary_in_force())
            .flatten()
    }

    /// The known roles of its servers.
    #[must_use]
    pub fn roles(&self) -> &PoolRoles {
        &self.roles
    }

    /// Replaces its servers by those of these entries. `before`: this pool, or the one that it replaces.
    fn update_servers(&self, entries: &[ServerEntry], before: &Self, registry: &ServerRegistry) {
        let (members, left_out) = members(&self.plan, entries, &self.addresses.lock(), registry);
        *self.left_out.lock() = left_out;
        self.record_own_listeners(&members, registry);
        self.note_departures(before, &members); // before the states of servers change
        self.update_checked(&before.servers(), &members); // before a new member gets a session
        self.replace_servers(members);
    }

    /// The servers that are left out because they are our own listeners, which lead to this pool.
    #[must_use]
    pub fn left_out(&self) -> Vec<LeftOutServer> {
        self.left_out.lock().clone()
    }

    /// All its entries: those of its plan and the dynamic ones.
    #[must_use]
    pub fn entries(&self) -> Arc<[ServerEntry]> {
        Arc::clone(&self.entries.borrow())
    }

    /// Its entries, now and whenever they change without a reload.
    #[must_use]
    pub fn subscribe_entries(&self) -> watch::Receiver<Arc<[ServerEntry]>> {
        self.entries.subscribe()
    }

    /// Its servers that are not in its plan, and the state of its source.
    #[must_use]
    pub fn dynamic(&self) -> &DynamicServers {
        &self.dynamic
    }

    /// Whether it has entries with host names.
    #[must_use]
    pub fn has_names(&self) -> bool {
        names_of(&self.entries.borrow()).next().is_some()
    }

    /// Puts this pool in force: from now on sessions find it, and its servers know whether they are checked. `before`:
    /// the pool that it replaces. If the plan requires a role that was not required before, the roles that are known of
    /// its servers are forgotten.
    pub(super) fn put_in_force(self: &Arc<Self>, before: Option<&Self>) {
        let this = Arc::downgrade(self);
        *self.in_force.lock() = Weak::clone(&this);
        let role = self.plan.health.required.role;
        let keeps_roles = |before: &&Self| role.is_none() || before.plan.health.required.role == role;
        let with_known_role = before
            .filter(keeps_roles)
            .map_or_else(Vec::new, |before| before.servers().to_vec());
        self.update_checked(&with_known_role, &self.servers());
        self.take_over_queue(this);
    }

    /// Leads sessions to the pool that is in force at their end.
    #[must_use]
    pub fn in_force(&self) -> &Arc<PoolInForce> {
        &self.in_force
    }

    /// Names this pool. Each of its sessions on its fallback holds a reference.
    #[must_use]
    pub fn fallback_origin(&self) -> &Arc<FallbackOrigin> {
        &self.fallback_origin
    }

    /// The status of its clones.
    #[must_use]
    pub fn scale(&self) -> &Arc<PoolScale> {
        &self.scale
    }

    /// Whether there may be sessions on its fallback: something besides this pool holds their origin.
    #[must_use]
    pub fn has_fallback_sessions(&self) -> bool {
        Arc::strong_count(&self.fallback_origin) > 1
    }

    /// Sets whether the servers are checked from now on, and whether a role or a lag is required of them. The role of a
    /// server that is not in `before` is forgotten: it may be known from an earlier stay in the pool. Such a server is
    /// no stand-in, either. If the plan wants no stand-ins, no server is one.
    fn update_checked(&self, before: &[Member], members: &[Member]) {
        let known: HashSet<ServerId> = before.iter().map(|server| server.id()).collect();
        let active = match (self.plan.is_checked(), self.plan.health.required.is_set()) {
            (false, _) => ActiveChecks::None,
            (true, false) => ActiveChecks::Health,
            (true, true) => ActiveChecks::HealthAndRole,
        };
        for server in members {
            let is_new = !known.contains(&server.id());
            server.set_active_checks(active);
            if is_new {
                server.forget_role();
            }
            if is_new || self.plan.fallback != Some(Fallback::Primary) {
                server.set_stand_in(false);
            }
        }
    }

    /// The path of one of its servers.
    pub(super) fn path_of(&self, server: &Server) -> ServerPath {
        (Arc::clone(self.name()), Arc::clone(&server.spec().label))
    }

    /// What is configured.
    #[must_use]
    pub fn plan(&self) -> &Arc<PoolPlan> {
        &self.plan
    }

    /// The addresses of a host name, which is given as it is configured; empty as long as none is known.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<ServerAddr> {
        self.addresses.lock().get(name).cloned().unwrap_or_default()
    }

    /// The names without a known address, as configured.
    #[must_use]
    pub fn unresolved(&self) -> Vec<Arc<str>> {
        let addresses = self.addresses.lock();
        let entries = self.entries();
        let names = names_of(&entries).map(|(entry, ..)| &entry.written);
        names
            .filter(|name| !addresses.contains_key(*name))
            .map(Arc::clone)
            .collect()
    }

    /// What the pool waits for before it is ready; `None`: it is ready. `needs_address`: whether it must have a server,
    /// and so an address, to be ready.
    #[must_use]
    pub fn why_not_ready(&self, needs_address: bool) -> Option<String> {
        let name = self.name();
        let servers = self.servers();
        // A pool whose clones are started when a client comes is ready without a server.
        let lacks_address = needs_address && servers.is_empty() && !self.needs_wake(Instant::now());
        let awaits_lookup = self.has_names() && !self.is_resolved();
        if lacks_address || awaits_lookup {
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
}

impl Deref for LivePool {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

impl AsRef<Pool> for LivePool {
    fn as_ref(&self) -> &Pool {
        &self.pool
    }
}
