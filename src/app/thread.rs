//! Runs blocking work outside the runtime.

use tokio::task::spawn_blocking;

use crate::reload::ReloadError;

/// Runs this part of a reload in another thread.
pub(super) async fn in_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReloadError> + Send + 'static,
) -> Result<T, ReloadError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|lost| Err(ReloadError::System(lost.into())))
}
