//! Drops an old plan with its pools, which may be large.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::live::InForce;

/// How long the old plan is kept. By then workers and sessions have dropped their references to it, so that none of
/// them has to free it.
const RETIREMENT: Duration = Duration::from_secs(1);

/// Drops an old plan with its pools, after a while.
pub(super) fn retire(old: Arc<InForce>) {
    tokio::spawn(async move {
        sleep(RETIREMENT).await;
        let _ = spawn_blocking(move || drop(old)).await;
    });
}
