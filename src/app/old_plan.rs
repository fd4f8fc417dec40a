//! Frees an old plan and its pools outside the workers: this takes long if they are large.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::live::InForce;

/// How long the old plan is kept. Whoever drops the last reference to a part of the plan frees that part. Within this
/// time, workers and most sessions drop their references, so that a worker seldom has the last one. Only a session
/// whose relay has not begun, and the socket of a removed address while its clients wait, may keep large parts longer.
const KEEP_TIME: Duration = Duration::from_secs(1);

/// Drops an old plan with its pools, after [`KEEP_TIME`].
pub(super) fn drop_later(old: Arc<InForce>) {
    tokio::spawn(async move {
        sleep(KEEP_TIME).await;
        let _ = spawn_blocking(move || drop(old)).await;
    });
}
