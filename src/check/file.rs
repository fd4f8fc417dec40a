//! Files that checks read.

use std::io;
use std::path::Path;

use super::CheckFailure;
use crate::blocking::blocking;
use crate::error::with_context;
use crate::regular_file;
use crate::text::escape;

/// The longest file: a longer one is probably no password, and was configured by mistake.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Reads a password from the file that `key` names, without the end of its line (LF, or CR and LF).
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

/// The password in a file, without the end of its line.
///
/// # Errors
/// The file cannot be read, is too long, or contains no password.
pub fn password(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = regular_file::read(file, PASSWORD_BYTES_MAX)?;
    if bytes.len() as u64 > PASSWORD_BYTES_MAX {
        let what = format!("more than {PASSWORD_BYTES_MAX} bytes: too long for a password");
        return Err(io::Error::other(what));
    }
    if bytes.pop_if(|byte| *byte == b'\n').is_some() {
        bytes.pop_if(|byte| *byte == b'\r');
    }
    if bytes.is_empty() {
        return Err(io::Error::other("the file contains no password"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_read_without_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (contents, expected) in [
            ("secret", Ok("secret")),
            ("secret\n", Ok("secret")),
            ("secret\r\n", Ok("secret")),
            (" se cret \r", Ok(" se cret \r")),
            ("", Err("the file contains no password")),
            ("\r\n", Err("the file contains no password")),
        ] {
            std::fs::write(&file, contents).unwrap();
            let read = read_password("password_file", file.path()).await;
            let read = read.map(|bytes| String::from_utf8(bytes).unwrap());
            let read = read.map_err(|failure| failure.reason().into_owned());
            let prefix = format!("the password cannot be read: password_file {}: ", file.path().display());
            let expected = expected.map(str::to_owned);
            assert_eq!(read, expected.map_err(|error| prefix + error), "{contents:?}");
        }
    }
}
