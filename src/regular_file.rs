//! Opens and reads files that must be regular ones, and replaces files as a whole.
//!
//! Opening a FIFO blocks until another process opens its other end, and a thread that is blocked in open(2) cannot be
//! interrupted: a secret replaced by a FIFO would take a thread for every read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
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
    regular(file)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("not a regular file"))
}

/// Opens a file to lock it, and creates it if it does not exist: NFS locks only files that are open for writing. Only the user
/// of this process may read it. Never waits for another process.
///
/// # Errors
/// The file cannot be opened or created, or it is a directory, FIFO, socket or device.
pub fn open_to_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600); // a FIFO opened for both is opened at once
    regular(options.open(path)?)
}

/// Reads a short file, at most one byte more than `bytes_max`: enough to tell that it is too long.
///
/// # Errors
/// As of [`open`], or the file cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces a file, whole or not at all. Only the user of this process may read it.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?; // mode 0600
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

/// Checks whether a folder has room for a new file of this many bytes. Leaves nothing there.
///
/// # Errors
/// No such file can be written.
pub fn probe(folder: &Path, bytes: usize) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(&vec![0; bytes])?;
    file.sync_all()
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
        std::fs::write(path("secret"), "1234").unwrap();
        assert_eq!(read(&path("secret"), 4).unwrap(), b"1234");
        assert_eq!(read(&path("secret"), 2).unwrap(), b"123");
        std::os::unix::fs::symlink("secret", path("link")).unwrap();
        assert!(open(&path("link")).is_ok());
        assert_eq!(open(&path("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let error = open_to_lock(&fifo).unwrap_err();
        assert_eq!(error.to_string(), "not a regular file");
    }
}
