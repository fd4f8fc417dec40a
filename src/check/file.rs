//! Files that checks read, in particular those of passwords.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::CheckFailure;
use crate::blocking::blocking;
use crate::error::with_context;
use crate::regular_file::{self, without_line_end};
use crate::text::escape;

/// The most bytes of a password file. A longer file probably contains no password, and was configured by mistake.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// The most reads of one file at once. If its file system hangs, each read blocks a thread, even after the check has
/// given up. The runtime has 512 threads for all work that may block. More than one read is allowed, because many
/// servers are checked together.
const READS_MAX: usize = 8;

/// The permits to read each file that is being read. The whole process shares them: a read that hangs outlives its
/// check, and a reload makes new checks.
static READS: Mutex<BTreeMap<PathBuf, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());

/// Runs work that reads this file, on a thread that may block. At most [`READS_MAX`] such reads run at once. Work that
/// has begun goes on if the future is dropped.
///
/// # Errors
/// Those of the work; or it has panicked, or the runtime has ended before the work began.
pub(super) async fn reading<T: Send + 'static>(
    file: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let permits = permits(file);
    let permit = permits.acquire_owned().await.expect("it is never closed");
    blocking(move || {
        let _permit = permit;
        work()
    })
    .await
}

fn permits(file: &Path) -> Arc<Semaphore> {
    let mut reads = READS.lock();
    reads.retain(|_, permits| permits.strong_count() > 0);
    let known = reads.get(file).and_then(Weak::upgrade);
    known.unwrap_or_else(|| {
        let permits = Arc::new(Semaphore::new(READS_MAX));
        reads.insert(file.to_owned(), Arc::downgrade(&permits));
        permits
    })
}

/// As [`password`], on a thread that may block. `key` is the configuration key that names the file.
///
/// # Errors
/// The file cannot be read, is too long, or contains no password. The error names the key.
pub(super) async fn read_password(key: &str, file: &Path) -> Result<Vec<u8>, CheckFailure> {
    let path = file.to_owned();
    let read = reading(file, move || password(&path)).await;
    read.map_err(|error| {
        let file = escape(&file.to_string_lossy(), &[]).into_owned();
        let what = format!("the password cannot be read: {key} {file}");
        CheckFailure::local(with_context(error, what))
    })
}

/// Reads the password in a file, without the end of its line (LF, or CR and LF).
///
/// # Errors
/// The file cannot be read, is too long, or contains no password.
pub fn password(file: &Path) -> io::Result<Vec<u8>> {
    let mut password = regular_file::read_secret(file, PASSWORD_BYTES_MAX, without_line_end)?;
    Ok(mem::take(&mut *password))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn reads_that_hang_block_few_threads() {
        let [hanging, other] = ["/hanging", "/other"].map(Path::new);
        let begun = Arc::new(AtomicUsize::new(0));
        let mut release = Vec::new();
        for _ in 0..3 * READS_MAX {
            let (sender, receiver) = mpsc::channel::<()>();
            release.push(sender);
            let begun = Arc::clone(&begun);
            let read = reading(hanging, move || {
                begun.fetch_add(1, Relaxed);
                let _ = receiver.recv(); // until the sender is dropped
                Ok(())
            });
            assert!(read.now_or_never().is_none(), "the check gives up");
        }
        reading(other, || Ok(())).await.unwrap();
        drop(release);
        reading(hanging, || Ok(())).await.unwrap();
        assert!(begun.load(Relaxed) <= READS_MAX);
    }
}
