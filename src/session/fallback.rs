//! Sessions on the fallback of their pool.

use std::sync::Arc;

use tokio::time::Instant;

use super::listener_state::ListenerState;
use crate::account::Entry;
use crate::dial::DialError;
use crate::live::LivePool;
use crate::plan::PoolId;
use crate::pool::Server;

/// The pool that serves the clients of this one now: this pool, or its fallback.
pub(super) fn serving_pool(state: &ListenerState, pool: PoolId, entry: &Entry) -> PoolId {
    let serving = state.pools.serving(pool, Instant::now());
    if serving != pool {
        note_fallback(entry, &state.pools[pool]);
    }
    serving
}

/// The fallback that serves a client whose pool has failed for this reason, as when its servers have gone down while the client
/// waited; `None`: the pool could still serve it, or there is no such fallback.
pub(super) fn fallback_after(state: &ListenerState, pool: PoolId, reason: DialError, entry: &Entry) -> Option<PoolId> {
    if !matches!(reason, DialError::NoServer | DialError::ConnectFailed) {
        return None;
    }
    let fallback = state.pools.usable_fallback(pool, Instant::now())?;
    note_fallback(entry, &state.pools[pool]);
    Some(fallback)
}

/// Notes that a session is on the primary, because no replica is usable.
pub(super) fn note_stand_in(entry: &Entry, pool: &LivePool, server: &Server) {
    if server.is_stand_in() {
        note_fallback(entry, pool);
    }
}

/// Notes that a session was meant for this pool, unless it was meant for another one before.
fn note_fallback(entry: &Entry, origin: &LivePool) {
    let origin = || Arc::clone(origin.fallback_origin());
    entry.info().fallback_from.get_or_insert_with(origin);
}
