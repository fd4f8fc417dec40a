//! Drops what was in force, which may be very much.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::live::InForce;

/// How long the old plan is kept. Workers and sessions drop their references to it before, so that none of them has to free
/// what may be very much.
const RETIREMENT: Duration = Duration::from_secs(1);

/// Drops what was in force, after a while.
pub(super) fn retire(old: Arc<InForce>) {
    tokio::spawn(async move {
        sleep(RETIREMENT).await;
        let _ = spawn_blocking(move || drop(old)).await;
    });
}
