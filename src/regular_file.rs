//! Opens files that must be regular ones.
//!
//! Opening a FIFO blocks until another process opens its other end, and a thread that is blocked in open(2) cannot be
//! interrupted: a secret replaced by a FIFO would take a thread for every read.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file for reading. Never waits for another process.
///
/// # Errors
/// The file cannot be opened, or it is a directory, FIFO, socket or device.
pub fn open(path: &Path) -> io::Result<File> {
    // O_NONBLOCK has no effect on regular files; a FIFO without a writer is opened at once (open(2), fifo(7)).
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("not a regular file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_of_files_are_rejected_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let fifo = path("fifo");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for other in [&fifo, Path::new("/dev/null"), folder.path()] {
            let error = open(other).unwrap_err();
            assert_eq!(error.to_string(), "not a regular file", "{}", other.display());
        }
        std::fs::write(path("secret"), "x").unwrap();
        std::os::unix::fs::symlink("secret", path("link")).unwrap();
        assert!(open(&path("link")).is_ok());
        assert_eq!(open(&path("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
