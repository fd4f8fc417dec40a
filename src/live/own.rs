//! Finds servers that are our own listeners: a listener that leads to a pool may not be a server of that pool.

use std::collections::HashSet;
use std::sync::Arc;

use super::{InForce, Live, LivePool};
use crate::addr::ListenAddr;
use crate::plan::{Fallback, ListenerPlan, Plan, ServerEntry};
use crate::pool::{OwnListener, ServerRegistry};

/// Our listeners, with the addresses that they are bound to. Routes with `from` do not count, as in the check of a file: they
/// may not match our own connections.
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

/// The names of the pools to which a listener leads, also as fallbacks.
fn pools_of(plan: &Plan, listener: &ListenerPlan) -> HashSet<Arc<str>> {
    let mut pools = HashSet::new();
    for target in listener.routes.targets_for_any_source() {
        let mut pool = Some(&plan.pools[*target]);
        // Ends at a known pool: its fallbacks are known, too.
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
    /// Leaves out servers that are listeners leading to this pool. To be called for each pool in force when the listeners have
    /// changed.
    pub(super) fn follow_own_listeners(&self, registry: &ServerRegistry) {
        let own = registry.own_listeners().leading_to(self.name());
        let servers = self.servers();
        if servers.iter().any(|server| own.at(server.spec().address).is_some()) {
            self.update_servers(&self.entries(), &servers, registry);
        } else {
            self.record_own_listeners(&servers, registry);
        }
    }

    /// The first of these servers that is a listener leading to this pool, with the name of the listener. Host names are not
    /// looked up.
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
    /// The warning if one of these servers of a pool is a listener that leads to the pool: the server is left out.
    #[must_use]
    pub fn own_listener_warning(&self, pool: &str, servers: &[ServerEntry]) -> Option<String> {
        let in_force = self.in_force();
        self.registry.own_listeners().forget_interfaces();
        let (entry, listener) = in_force.pool(pool)?.own_listener_among(servers, &self.registry)?;
        let label = entry.label();
        Some(format!(
            "server `{label}` is listener `{listener}`, which leads back to the pool, and left out: every session would open another \
             one"
        ))
    }

    /// Puts our listeners in force, before the pools of the same plan.
    pub(super) fn set_own_listeners(&self, plan: &Plan, addresses: &[Vec<ListenAddr>]) {
        let listeners = own_listeners(plan, addresses);
        let own = self.registry.own_listeners();
        own.replace(listeners, |pool| plan.pools.named(pool).is_some());
    }

    /// Takes over the servers of a pool that its source lists now, and those that operators have added.
    pub(super) fn update_dynamic_servers(&self, in_force: &InForce, pool: &LivePool) {
        pool.update_dynamic_servers(&self.registry);
        self.readmit_servers(in_force);
    }

    /// Takes back servers that were left out and no longer lead back to their pools. To be called after the servers of another
    /// pool have changed.
    pub(super) fn readmit_servers(&self, in_force: &InForce) {
        for name in self.registry.own_listeners().pools_to_readmit() {
            if let Some(pool) = in_force.pool(&name) {
                pool.update_dynamic_servers(&self.registry);
            }
        }
    }
}
