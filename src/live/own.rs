//! Which listeners lead to which pools: none of them is to be a server there.

use std::collections::HashMap;
use std::sync::Arc;

use super::Live;
use crate::addr::ListenAddr;
use crate::plan::{Fallback, ListenerPlan, Plan, PoolId, ServerEntry};
use crate::pool::OwnListener;
use crate::route::Target;

/// The listeners that lead to each pool, with the addresses that they are bound to. A route for some networks may not be for
/// us: it does not count, as in the check of a file.
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

/// The names of the pools that a listener leads to, also as fallbacks; each once.
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
    /// What is to be said of servers of a pool of which one is a listener that leads to the pool: it is left out.
    #[must_use]
    pub fn warn_of_own(&self, pool: &str, servers: &[ServerEntry]) -> Option<String> {
        let in_force = self.in_force();
        let (entry, listener) = in_force.pool(pool)?.own_listener_among(servers, &self.registry)?;
        let label = entry.label();
        Some(format!(
            "server `{label}` is listener `{listener}` itself, and left out: every session would open another one"
        ))
    }
}
