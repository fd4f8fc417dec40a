//! Files that checks read.

use std::io;
use std::path::Path;

use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::dial::ConnectFailure;
use crate::error::with_context;

/// A longer file is probably not a password, and was configured by mistake.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Adds the key that names the file to an error. A shortage of descriptors or memory is returned unchanged, because it is
/// not caused by the file.
pub(super) fn file_error(key: &str, error: io::Error) -> io::Error {
    if ConnectFailure::of(&error).is_local_shortage() {
        return error;
    }
    with_context(error, key)
}

/// Reads the file that `key` names, which contains a password, without a line feed at its end.
///
/// # Errors
/// The file cannot be read or is too long. The error names the key.
pub(super) async fn read_password(key: &str, file: &Path) -> io::Result<Vec<u8>> {
    read_short(file).await.map_err(|error| file_error(key, error))
}

async fn read_short(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(file).await?.take(PASSWORD_BYTES_MAX + 1);
    file.read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > PASSWORD_BYTES_MAX {
        let what = format!("more than {PASSWORD_BYTES_MAX} bytes: too long for a password");
        return Err(io::Error::other(what));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}
