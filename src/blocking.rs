//! Runs work that may block, such as reading files, on a thread of tokio's blocking pool.

use std::io;

use tokio::task::spawn_blocking;

/// Runs work that may block, for example because a file system hangs, outside the threads that run tasks. The work goes
/// on if the future is dropped.
///
/// # Errors
/// The error of the work; or an `io::Error` if the work panicked, or if the runtime ended before the work began.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    spawn_blocking(work)
        .await
        .unwrap_or_else(|lost| Err(io::Error::other(lost).into()))
}
