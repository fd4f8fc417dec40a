//! A pipe that a clone prints to.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

use super::printed::{PrintedLine, PrintedLines};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 4096;

/// The end of a pipe from which the output of a clone is read.
pub struct PrintedPipe {
    pipe: Receiver,
    lines: PrintedLines,
}

impl PrintedPipe {
    /// Reads from this end. To be called within a runtime.
    ///
    /// # Errors
    /// It is not the reading end of a pipe, or the runtime cannot watch it.
    pub fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pipe: Receiver::from_owned_fd(pipe)?,
            lines: PrintedLines::new(Instant::now()),
        })
    }

    /// The next printed lines, except the suppressed ones; `None`: all processes have closed their ends.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn next(&mut self) -> io::Result<Option<Vec<PrintedLine>>> {
        let mut buffer = [0; READ_BYTES];
        let read = self.pipe.read(&mut buffer).await?;
        let now = Instant::now();
        Ok(match read {
            0 => self.lines.finish(now).map(|last| vec![last]),
            _ => Some(self.lines.push(&buffer[..read], now)),
        })
    }
}
