//! Files that checks read.

use std::io;
use std::path::Path;

use crate::blocking::blocking;
use crate::error::with_context;
use crate::regular_file;

/// The longest file: a longer one is probably no password, and was configured by mistake.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Reads a password from the file that `key` names, without the end of its line (LF, or CR and LF).
///
/// # Errors
/// The file cannot be read, is too long, or contains no password. The error names the key.
pub(super) async fn read_password(key: &str, file: &Path) -> io::Result<Vec<u8>> {
    read_short(file).await.map_err(|error| with_context(error, key))
}

async fn read_short(file: &Path) -> io::Result<Vec<u8>> {
    let file = file.to_owned();
    let mut bytes = blocking(move || regular_file::read(&file, PASSWORD_BYTES_MAX)).await?;
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
            ("", Err("password_file: the file contains no password")),
            ("\r\n", Err("password_file: the file contains no password")),
        ] {
            std::fs::write(&file, contents).unwrap();
            let read = read_password("password_file", file.path()).await;
            let read = read.map(|bytes| String::from_utf8(bytes).unwrap());
            let read = read.map_err(|error| crate::error::chain(&error));
            assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned), "{contents:?}");
        }
    }
}
