//! Opens and reads files that must be regular ones, and replaces files as a whole.
//!
//! Opening a FIFO blocks until another process opens its other end, and a thread that is blocked in open(2) cannot be
//! interrupted: a secret replaced by a FIFO would take a thread for every read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{Access, access};
use zeroize::Zeroizing;

use crate::units::format_size;

/// Opens a file for reading. Never waits for another process.
///
/// # Errors
/// The file cannot be opened, or it is a directory, FIFO, socket or device.
pub fn open(path: &Path) -> io::Result<File> {
    // O_NONBLOCK has no effect on regular files; a FIFO without a writer is opened at once (open(2), fifo(7)).
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    regular(options.open(path)?)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("not a regular file"))
}

/// Opens a file in order to lock it. It is opened for reading and writing, because NFS grants an exclusive lock only on
/// a file that is open for writing. If it does not exist, it is created, and only the user of this process may read it.
/// Never waits for another process.
///
/// # Errors
/// The file cannot be opened or created, or it is a directory, FIFO, socket or device.
pub fn open_to_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600); // read and write: a FIFO is opened at once
    regular(options.open(path)?)
}

/// As [`open_to_lock`], for a file that must exist.
///
/// # Errors
/// Those of [`open_to_lock`].
pub fn open_existing_to_lock(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true).write(true).open(path)?)
}

/// Reads a short file.
///
/// # Errors
/// Those of [`open`]; or the file cannot be read, or is longer than `bytes_max` (`InvalidData`).
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_zeroizing(path, bytes_max).map(|mut bytes| mem::take(&mut *bytes))
}

/// As [`read`], for a file that may contain a secret: the bytes are erased when they are dropped.
///
/// # Errors
/// Those of [`read`].
pub fn read_zeroizing(path: &Path, bytes_max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = open(path)?;
    let length = file.metadata()?.len().min(bytes_max);
    // Reserved at once: a buffer that grows leaves copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(length).unwrap_or(0).saturating_add(1),
    ));
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let why = format!("it is longer than {}", format_size(bytes_max));
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(bytes)
}

/// Reads a secret from a file. `trim` removes what may surround the secret there.
///
/// # Errors
/// Those of [`read`]; or the secret is empty (`InvalidData`).
pub fn read_secret(path: &Path, bytes_max: u64, trim: fn(&[u8]) -> &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes = read_zeroizing(path, bytes_max)?;
    match trim(&bytes) {
        [] => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        secret => Ok(Zeroizing::new(secret.to_vec())),
    }
}

/// The text without the end of its line: LF, or CR and LF.
#[must_use]
pub fn without_line_end(text: &[u8]) -> &[u8] {
    let line = text.strip_suffix(b"\n");
    line.map_or(text, |line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Replaces a file, whole or not at all. Only the user of this process may read it.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new(".")); // a bare name has an empty parent
    let mut file = tempfile::NamedTempFile::new_in(directory)?; // mode 0600
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}

/// Checks whether files could be created in a directory. A missing directory would be created first. Changes nothing.
///
/// # Errors
/// Permissions or a read-only file system prevent this, or the path is not that of a directory.
pub fn check_directory(directory: &Path) -> io::Result<()> {
    let mut ancestors = directory.ancestors();
    // The nearest ancestor that exists: the others would be created in it. A relative path may have none.
    let existing = ancestors.find(|ancestor| ancestor.symlink_metadata().is_ok());
    check_creatable_in(existing.unwrap_or(Path::new("")))
}

/// Checks whether files can be created in a directory; an empty path stands for the working directory. Changes nothing.
///
/// # Errors
/// Those of [`check_directory`], or the directory is missing.
pub fn check_creatable_in(directory: &Path) -> io::Result<()> {
    // The dot makes this fail if the path is not a directory.
    Ok(access(directory.join("."), Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Checks whether a directory has room for a new file of this many bytes. Leaves nothing there.
///
/// # Errors
/// No such file can be written.
pub fn check_room(directory: &Path, bytes: usize) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&vec![0; bytes])?;
    file.sync_all()
}

/// Makes a FIFO, for tests.
#[cfg(test)]
pub(crate) fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_of_files_are_rejected_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let fifo = path("fifo");
        make_fifo(&fifo);
        for other in [&fifo, Path::new("/dev/null"), directory.path()] {
            let error = open(other).unwrap_err();
            assert_eq!(error.to_string(), "not a regular file", "{}", other.display());
        }
        let error = open_to_lock(&fifo).unwrap_err();
        assert_eq!(error.to_string(), "not a regular file");
    }

    #[test]
    fn only_a_file_within_the_limit_is_read_and_a_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "1234").unwrap();
        assert_eq!(read(&path("file"), 4).unwrap(), b"1234");
        assert_eq!(read(&path("file"), 3).unwrap_err().to_string(), "it is longer than 3B");
        for opened in [open(&path("absent")), open_existing_to_lock(&path("absent"))] {
            assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert!(!path("absent").exists());
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        assert!(open(&path("link")).is_ok());
    }

    #[test]
    fn a_file_with_a_bare_name_is_replaced_in_the_working_directory() {
        let bare = tempfile::Builder::new().tempfile_in(".").unwrap();
        let path = Path::new(bare.path().file_name().unwrap());
        replace(path, b"new").unwrap();
        assert_eq!(read(path, 9).unwrap(), b"new");
    }

    #[test]
    fn a_secret_is_whole_or_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let secret = |text: &str, trim: fn(&[u8]) -> &[u8]| {
            std::fs::write(&file, text).unwrap();
            let secret = read_secret(file.path(), 8, trim).map_err(|error| error.to_string());
            secret.map(|secret| String::from_utf8(secret.to_vec()).unwrap())
        };
        for (text, expected) in [
            ("secret", Ok("secret")),
            ("secret\n", Ok("secret")),
            ("secret\r\n", Ok("secret")),
            (" se et \r", Ok(" se et \r")),
            ("", Err("it is empty")),
            ("\r\n", Err("it is empty")),
            ("secret1\n\n", Err("it is longer than 8B")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(secret(text, without_line_end), expected, "{text:?}");
        }
        assert_eq!(secret(" secret\n", <[u8]>::trim_ascii).as_deref(), Ok("secret"));
        assert_eq!(secret(" \n", <[u8]>::trim_ascii).unwrap_err(), "it is empty");
        assert_eq!(
            secret("secret   \n", <[u8]>::trim_ascii).unwrap_err(),
            "it is longer than 8B",
            "white space counts for the length, too"
        );
    }
}
