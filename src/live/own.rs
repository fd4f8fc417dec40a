//! Finds the listeners that lead to each pool: none of them may be a server of that pool.

use std::collections::HashMap;
use std::sync::Arc;

use super::Live;
use crate::addr::ListenAddr;
use crate::plan::{Fallback, ListenerPlan, Plan, PoolId, ServerEntry};
use crate::pool::OwnListener;
use crate::route::Target;

/// The listeners that lead to each pool, with the addresses that they are bound to. A route with `from` may not match our own
/// connections: it does not count, as in the check of a file.
pub(super) fn listeners_by_pool(plan: &Plan, addresses: &[Vec<ListenAddr>]) -> HashMap<Arc<str>, Vec<OwnListener>> {
    let mut by_pool: HashMap<Arc<str>, Vec<OwnListener>> = HashMap::new();
    for (listener, addresses) in plan.listeners.iter().zip(addresses) {
        let own: OwnListener = (Arc::clone(&listener.name), addresses.as_slice().into());
        for pool in pools_of(plan, listener) {
            by_pool.entry(pool).or_default().push(own.clone());
        }
    }
    by_pool
}

/// The names of the pools to which a listener leads, also as fallbacks, without duplicates.
fn pools_of(plan: &Plan, listener: &ListenerPlan) -> Vec<Arc<str>> {
    let routes = listener.routes.routes().iter().filter(|route| route.from.is_empty());
    let targets = routes.filter_map(|route| match &route.to {
        Target::Pool(pool) => Some(*pool),
        Target::Refuse => None,
    });
    let mut targets: Vec<PoolId> = targets.chain(listener.routes.default().copied()).collect();
    let mut next = 0;
    while let Some(id) = targets.get(next) {
        if let Some(Fallback::Pool(name)) = &plan.pools[*id].fallback {
            targets.extend(plan.pools.id(name)); // fallbacks form no cycle
        }
        next += 1;
    }
    targets.sort_unstable_by_key(|id| id.0);
    targets.dedup();
    targets.iter().map(|id| Arc::clone(&plan.pools[*id].name)).collect()
}

impl Live {
    /// The warning if one of these servers of a pool is a listener that leads to the pool: the server is left out.
    #[must_use]
    pub fn own_listener_warning(&self, pool: &str, servers: &[ServerEntry]) -> Option<String> {
        let in_force = self.in_force();
        let (entry, listener) = in_force.pool(pool)?.own_listener_among(servers, &self.registry)?;
        let label = entry.label();
        Some(format!(
            "server `{label}` is listener `{listener}` itself, and left out: every session would open another one"
        ))
    }
}
