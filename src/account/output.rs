//! Where the lines of the access log go. A target that takes nothing loses lines; when it takes some again they are
//! written as if nothing had been.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::io::ioctl_fionbio;

use super::access_log::AccessTarget;
use crate::text::escape;

type Stream = BufWriter<Box<dyn Write + Send>>;

/// Where lines go.
pub struct Output {
    path: Option<PathBuf>,
    stream: Stream,
    /// Lines lost since the target took none any more, which is said once; `None`: it takes them.
    failing: Option<u64>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// Opens a target; `None` for [`AccessTarget::Off`].
    ///
    /// # Errors
    /// The file, and why it cannot be opened.
    pub fn open(target: &AccessTarget) -> io::Result<Option<Self>> {
        let (path, stream): (_, Box<dyn Write + Send>) = match target {
            AccessTarget::Off => return Ok(None),
            AccessTarget::Stdout => (None, Box::new(io::stdout())),
            AccessTarget::Stderr => (None, Box::new(io::stderr())),
            AccessTarget::File(path) => {
                let named = |error: io::Error| {
                    io::Error::new(
                        error.kind(),
                        format!("{}: {error}", escape(&path.to_string_lossy(), &[])),
                    )
                };
                (Some(path.clone()), Box::new(append(path).map_err(named)?))
            }
        };
        Ok(Some(Self {
            path,
            stream: BufWriter::new(stream),
            failing: None,
        }))
    }

    /// Takes a line. What cannot be written now is kept, and tried again; when the buffer is full lines are lost.
    /// Returns how many are.
    pub(super) fn write(&mut self, line: &str) -> u64 {
        let Err(error) = self.stream.write_all(line.as_bytes()) else {
            return 0;
        };
        self.fails(&error);
        self.lost(1)
    }

    /// Whether lines wait that the target did not take.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// Writes what waits, as far as that can be done.
    pub(super) fn flush(&mut self) {
        match self.stream.flush() {
            Err(error) => self.fails(&error),
            Ok(()) => {
                if let Some(lost) = self.failing.take() {
                    tracing::info!(lost, "the access log is written again");
                }
            }
        }
    }

    /// Opens the file again. The old one stays in use when that cannot be done. Returns how many lines are lost with it.
    pub(super) fn reopen(&mut self) -> u64 {
        let Some(path) = &self.path else { return 0 };
        match append(path) {
            Ok(file) => self.leave(Box::new(file)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot reopen the access log, going on with the old file");
                0
            }
        }
    }

    /// Nothing more is written here. Returns how many lines are lost.
    pub(super) fn close(mut self) -> u64 {
        self.leave(Box::new(io::sink()))
    }

    /// Goes on elsewhere. The beginning of a line may be written already, so that what waits cannot go along.
    fn leave(&mut self, next: Box<dyn Write + Send>) -> u64 {
        let _ = self.stream.flush(); // what is left then is lost
        let (_, left) = mem::replace(&mut self.stream, BufWriter::new(next)).into_parts();
        let left = left.unwrap_or_default(); // it never panics while it writes
        let lines = left.iter().filter(|byte| **byte == b'\n').count();
        self.lost(lines as u64)
    }

    fn fails(&mut self, error: &io::Error) {
        if self.failing.is_none() {
            tracing::warn!(%error, "cannot write the access log: lines are lost until it can");
            self.failing = Some(0);
        }
    }

    fn lost(&mut self, lines: u64) -> u64 {
        if let Some(lost) = &mut self.failing {
            *lost += lines;
        }
        lines
    }
}

/// Opens a file to append to. A FIFO that nobody reads is an error, and nothing to wait for: this is also called where
/// everything else would wait too. Writing waits for its reader.
fn append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    ioctl_fionbio(&file, false)?;
    Ok(file)
}
