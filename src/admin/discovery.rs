//! Where the servers of a pool come from, and which of them are left out.

use super::context::rfc3339;
use super::pool_bodies::{DiscoveryBody, LeftOutBody};
use crate::live::LivePool;

/// The source of a pool's servers; `None`: the pool has no source (`discover`).
pub(super) fn discovery_body(pool: &LivePool) -> Option<DiscoveryBody> {
    let plan = pool.plan().discover.as_ref()?;
    let state = pool.dynamic().source();
    Some(DiscoveryBody {
        source: plan.source.to_string(),
        up: state.is_up,
        last_success: state.last_success.map(rfc3339),
        error: state.error.as_deref().map(str::to_owned),
        warning: state.warning.as_deref().map(str::to_owned),
    })
}

/// The servers of a pool that are left out because they are our own listeners.
pub(super) fn left_out_bodies(pool: &LivePool) -> Vec<LeftOutBody> {
    let left_out = pool.left_out().into_iter().map(|server| LeftOutBody {
        name: server.label.to_string(),
        address: server.address.to_string(),
        listener: server.listener.to_string(),
    });
    left_out.collect()
}
