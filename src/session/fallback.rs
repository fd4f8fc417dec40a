//! Sessions on the fallback of their pool.

use std::sync::Arc;

use tokio::time::Instant;

use super::listener_state::ListenerState;
use crate::account::Entry;
use crate::dial::DialError;
use crate::live::LivePool;
use crate::plan::PoolId;
use crate::pool::Server;

/// The fallback for a client that could not be connected to this pool, if the pool has become unusable since it was
/// chosen. `None`: the pool is still usable, no fallback is usable, or no fallback is tried after a failure for this
/// reason.
pub(super) fn fallback_after(state: &ListenerState, pool: PoolId, reason: DialError) -> Option<PoolId> {
    if !matches!(reason, DialError::NoServer | DialError::ConnectFailed) {
        return None;
    }
    state.pools.usable_fallback(pool, Instant::now())
}

/// Calls [`note_fallback`] if the server of a session is a stand-in: the primary of a pool of replicas, which is used
/// because no replica is usable.
pub(super) fn note_stand_in(entry: &Entry, pool: &LivePool, server: &Server) {
    if server.is_stand_in() {
        note_fallback(entry, pool);
    }
}

/// Notes that a session gets a substitute for the servers of the pool `meant`. An earlier note of the session stays.
pub(super) fn note_fallback(entry: &Entry, meant: &LivePool) {
    let origin = || Arc::clone(meant.fallback_origin());
    entry.info().fallback_from.get_or_insert_with(origin);
}
