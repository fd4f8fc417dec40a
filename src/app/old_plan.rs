//! Drops an old plan with its pools, which may be large.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::live::InForce;

/// How long the old plan is kept. By then workers and most sessions have dropped their references to its parts, so that
/// no worker has to free a part. A session that still waits for its ClientHello or server may keep some parts longer.
const KEEP_TIME: Duration = Duration::from_secs(1);

/// Drops an old plan with its pools, after [`KEEP_TIME`].
pub(super) fn drop_later(old: Arc<InForce>) {
    tokio::spawn(async move {
        sleep(KEEP_TIME).await;
        let _ = spawn_blocking(move || drop(old)).await;
    });
}
