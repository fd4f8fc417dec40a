//! The target of the access log. While writing to it fails, lines that the buffer cannot hold are lost. Writing is
//! tried again until it succeeds.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::mem;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::{Errno, ioctl_fionbio};

use crate::error::with_context;
use crate::regular_file;
use crate::text::escape;

/// The most links that Linux follows in a path (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Where the access log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere: the log is off.
    Off,
    /// A file, reopened on SIGUSR1.
    File(PathBuf),
}

type BufferedStream = BufWriter<Box<dyn Write + Send>>;

/// An open target, with a buffer of lines.
pub struct Output {
    /// The file; `None`: a standard stream, which is never reopened.
    path: Option<PathBuf>,
    stream: BufferedStream,
    /// While writing fails: the lines lost since it began to fail. A failure is logged when it begins and when it ends.
    lost_while_failing: Option<u64>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// Opens a target; returns `None` for [`AccessTarget::Off`].
    ///
    /// # Errors
    /// The file cannot be opened; the error names the file and the reason.
    pub fn open(target: &AccessTarget) -> io::Result<Option<Self>> {
        let (path, stream): (_, Box<dyn Write + Send>) = match target {
            AccessTarget::Off => return Ok(None),
            AccessTarget::Stdout => (None, Box::new(io::stdout())),
            AccessTarget::Stderr => (None, Box::new(io::stderr())),
            AccessTarget::File(path) => {
                let file = open_to_append(path).map_err(|error| with_path(error, path))?;
                (Some(path.clone()), Box::new(file))
            }
        };
        Ok(Some(Self {
            path,
            stream: BufWriter::new(stream),
            lost_while_failing: None,
        }))
    }

    /// Checks whether a file could be opened, without creating it. Does not find out whether a FIFO has a reader:
    /// opening it could end that reader.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub fn check(path: &Path) -> io::Result<()> {
        let checked = match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Err(Errno::ISDIR.into()),
            Ok(metadata) if metadata.file_type().is_socket() => Err(Errno::NXIO.into()),
            Ok(_) => access(path, Access::WRITE_OK).map_err(Into::into),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Through a link, the missing file that it names would be created.
                let created = link_target(path);
                regular_file::check_creatable_in(created.parent().unwrap_or(Path::new("")))
            }
            Err(error) => Err(error),
        };
        checked.map_err(|error| with_path(error, path))
    }

    /// Buffers a line. If it does not fit, the buffer is written first; if that fails, this line is lost and the buffer
    /// is kept for the next attempt. Returns the number of lines lost.
    pub(super) fn write(&mut self, line: &str) -> u64 {
        let Err(error) = self.stream.write_all(line.as_bytes()) else {
            return 0;
        };
        self.mark_failing(&error);
        self.count_lost(1)
    }

    /// Whether writing has failed, and no [`Self::flush`] has succeeded since.
    pub(super) fn is_failing(&self) -> bool {
        self.lost_while_failing.is_some()
    }

    /// Writes the buffer to the target, as far as possible.
    pub(super) fn flush(&mut self) {
        match self.stream.flush() {
            Err(error) => self.mark_failing(&error),
            Ok(()) => {
                if let Some(lost) = self.lost_while_failing.take() {
                    tracing::info!(lost, "the access log can be written again");
                }
            }
        }
    }

    /// Opens the file again; if that fails, the old one stays in use. Returns the number of lines lost.
    pub(super) fn reopen(&mut self) -> u64 {
        let Some(path) = &self.path else { return 0 };
        match open_to_append(path) {
            Ok(file) => self.replace_stream(Box::new(file)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot reopen the access log, continuing with the old file");
                0
            }
        }
    }

    /// Writes the buffer and closes the target. Returns the number of lines lost.
    pub(super) fn close(mut self) -> u64 {
        self.replace_stream(Box::new(io::sink()))
    }

    /// Continues with another stream. What the old one did not accept is lost: it may have accepted the beginning of a
    /// line, whose rest would be garbage in the new one.
    fn replace_stream(&mut self, next: Box<dyn Write + Send>) -> u64 {
        if let Err(error) = self.stream.flush() {
            self.mark_failing(&error); // what remains in the buffer is counted below
        }
        let (_, unwritten) = mem::replace(&mut self.stream, BufWriter::new(next)).into_parts();
        let unwritten = unwritten.unwrap_or_default(); // an error only if a write has panicked, and none does
        let lines = unwritten.iter().filter(|byte| **byte == b'\n').count();
        self.count_lost(lines as u64)
    }

    fn mark_failing(&mut self, error: &io::Error) {
        if self.lost_while_failing.is_none() {
            tracing::warn!(%error, "cannot write the access log, lines that its buffer cannot hold are lost until it can be written again");
            self.lost_while_failing = Some(0);
        }
    }

    fn count_lost(&mut self, lines: u64) -> u64 {
        if let Some(lost) = &mut self.lost_while_failing {
            *lost += lines;
        }
        lines
    }
}

fn with_path(error: io::Error, path: &Path) -> io::Error {
    with_context(error, escape(&path.to_string_lossy(), &[]))
}

/// The path that the links at `path` lead to in the end.
fn link_target(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = path.read_link() else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target); // a relative target begins at the link
    }
    path
}

/// Opens a file for appending. Opening a FIFO without a reader fails instead of waiting for a reader: a reload calls
/// this function in an async task, which must not block. Later writes do block while the FIFO is full.
fn open_to_append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    ioctl_fionbio(&file, false)?;
    Ok(file)
}
