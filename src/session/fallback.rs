//! Sessions on the fallback of their pool.

use std::sync::Arc;

use tokio::time::Instant;

use super::listener_state::ListenerState;
use crate::account::Entry;
use crate::live::LivePool;
use crate::plan::PoolId;
use crate::pool::Server;

/// The pool that serves the clients of this one now: this pool, or its fallback.
pub(super) fn serving_pool<'a>(state: &'a ListenerState, pool: PoolId, entry: &Entry) -> &'a Arc<LivePool> {
    let serving = state.pools.serving(pool, Instant::now());
    if serving != pool {
        entry.info().fallback_from = Some(Arc::clone(state.pools[pool].fallback_origin()));
    }
    &state.pools[serving]
}

/// Notes that a session is on the primary, because no replica is usable.
pub(super) fn note_stand_in(entry: &Entry, pool: &LivePool, server: &Server) {
    if server.is_stand_in() {
        let origin = || Arc::clone(pool.fallback_origin());
        entry.info().fallback_from.get_or_insert_with(origin);
    }
}
