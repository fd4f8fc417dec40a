//! Password files that checks read.

use std::io;
use std::mem;
use std::path::Path;

use super::CheckFailure;
use crate::blocking::blocking;
use crate::error::with_context;
use crate::regular_file::{self, without_line_end};
use crate::text::escape;

/// The longest file: a longer one is probably no password, and was configured by mistake.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// As [`password`], on a thread that may block. `key` is the configuration key that names the file.
///
/// # Errors
/// The file cannot be read, is too long, or contains no password. The error names the key.
pub(super) async fn read_password(key: &str, file: &Path) -> Result<Vec<u8>, CheckFailure> {
    let path = file.to_owned();
    let read = blocking(move || password(&path)).await;
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
