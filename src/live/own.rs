//! Finds servers that are our own listeners: a listener that leads to a pool must not be a server of that pool.

use std::collections::HashSet;
use std::sync::Arc;

use super::{InForce, Live, LivePool};
use crate::addr::{ListenAddr, ServerAddr};
use crate::local_addresses::LocalAddresses;
use crate::plan::{Fallback, ListenerPlan, Plan, ServerEntry};
use crate::pool::{ListenerLookup, Member, OwnListener, ServerRegistry};

/// Our listeners, with the addresses that they are bound to, and the pools to which they lead.
#[must_use]
pub fn own_listeners(plan: &Plan, addresses: &[Vec<ListenAddr>]) -> Vec<OwnListener> {
    let listeners = plan.listeners.iter().zip(addresses);
    let own = listeners.map(|(listener, addresses)| OwnListener {
        name: Arc::clone(&listener.name),
        addresses: addresses.as_slice().into(),
        pools: pools_of(plan, listener),
    });
    own.collect()
}

/// The names of the pools to which a listener leads, also as fallbacks. Routes with `from` are ignored, because it is
/// not known whether our own connections match them.
fn pools_of(plan: &Plan, listener: &ListenerPlan) -> HashSet<Arc<str>> {
    let mut pools = HashSet::new();
    for target in listener.routes.targets_for_any_source() {
        let mut pool = Some(&plan.pools[*target]);
        // Ends at a pool that is in `pools` already: then its fallbacks are, too.
        while let Some(new) = pool.filter(|pool| pools.insert(Arc::clone(&pool.name))) {
            pool = match &new.fallback {
                Some(Fallback::Pool(name)) => plan.pools.named(name),
                Some(Fallback::Primary) | None => None,
            };
        }
    }
    pools
}

impl LivePool {
    /// Records which of our listeners are servers of this pool, and which servers are left out. Not to be called while
    /// a plan is only prepared, because it may never be applied.
    pub(super) fn record_own_listeners(&self, servers: &[Member], registry: &ServerRegistry) {
        let own = registry.own_listeners();
        own.set_left_out(self.name(), &self.left_out());
        own.set_links(self.name(), servers.iter().map(|server| server.spec().address));
    }

    /// Leaves out servers that are listeners leading to this pool. To be called for each pool in force when the
    /// listeners, or the addresses of this machine, have changed.
    pub(super) fn leave_out_own_listeners(&self, registry: &ServerRegistry) {
        let own = registry.own_listeners().leading_to(self.name());
        let servers = self.servers();
        if servers.iter().any(|server| own.at(server.spec().address).is_some()) {
            self.update_entries(self.entries(), self, registry); // notifies the checks, unlike `update_servers`
        } else {
            self.record_own_listeners(&servers, registry);
        }
    }

    /// Whether this server has a known address that is not the address of one of these listeners.
    pub(super) fn can_use(&self, entry: &ServerEntry, own: &ListenerLookup) -> bool {
        let is_other = |address: &ServerAddr| own.at(*address).is_none();
        match entry.fixed_address() {
            Some(address) => is_other(&address),
            None => self.addresses(&entry.written).iter().any(is_other),
        }
    }

    /// Drops the servers that were kept from the previous list of the source, if a server of the latest list can be
    /// used now. Returns whether any were dropped.
    pub(super) fn release_kept(&self, registry: &ServerRegistry) -> bool {
        let own = registry.own_listeners().leading_to(self.name());
        self.dynamic().release_kept(|entry| self.can_use(entry, &own))
    }

    /// The first of these servers that is a listener leading to this pool, with the name of the listener. Host names
    /// are not looked up.
    #[must_use]
    pub fn own_listener_among<'e>(
        &self,
        servers: &'e [ServerEntry],
        registry: &ServerRegistry,
    ) -> Option<(&'e ServerEntry, Arc<str>)> {
        let own = registry.own_listeners().leading_to(self.name());
        servers.iter().find_map(|entry| {
            let listener = own.at(entry.fixed_address()?)?;
            Some((entry, Arc::clone(listener)))
        })
    }
}

impl Live {
    /// Replaces the addresses of this machine. Leaves out servers that have become our own listeners because this
    /// machine has got their address. Takes back servers that no longer are our own listeners because it has lost their
    /// address.
    pub fn set_local_addresses(&self, addresses: LocalAddresses) {
        let _changing = self.changing();
        if self.registry.own_listeners().set_local_addresses(addresses) {
            let in_force = self.in_force();
            in_force
                .pools
                .iter()
                .for_each(|pool| pool.leave_out_own_listeners(&self.registry));
            self.readmit_left_out(&in_force);
        }
    }

    /// Our listener at the address of a clone of this pool, if that listener leads to the pool.
    #[must_use]
    pub fn own_listener_at(&self, pool: &str, address: ServerAddr) -> Option<Arc<str>> {
        self.registry.own_listeners().leading_to(pool).at(address).cloned()
    }

    /// Puts our listeners in force, before the pools of the same plan.
    pub(super) fn set_own_listeners(&self, plan: &Plan, addresses: &[Vec<ListenAddr>]) {
        let listeners = own_listeners(plan, addresses);
        let own = self.registry.own_listeners();
        let is_in_plan = |pool: &str| plan.pools.named(pool).is_some();
        own.replace(listeners, is_in_plan);
    }

    /// Updates a pool after a change of its listed servers, or of those that operators have added. Then takes back, in
    /// all pools, the servers that were left out and no longer lead back to their pools.
    pub(super) fn update_dynamic_servers(&self, in_force: &InForce, pool: &LivePool) {
        if pool.update_dynamic_servers(&self.registry) {
            self.notify_listed();
        }
        self.readmit_left_out(in_force);
    }

    /// Takes back servers that were left out and no longer lead back to their pools. To be called after a change of
    /// the servers of a pool, of the listeners, or of the addresses of this machine.
    pub(super) fn readmit_left_out(&self, in_force: &InForce) {
        for name in self.registry.own_listeners().pools_to_readmit() {
            if let Some(pool) = in_force.pool(&name)
                && pool.update_dynamic_servers(&self.registry)
            {
                self.notify_listed();
            }
        }
    }
}
