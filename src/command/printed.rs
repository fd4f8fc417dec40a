//! The part of a command's output that is shown.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use tokio::net::unix::pipe::Receiver;

use crate::text::{LINE_BYTES_MAX, Lines};

/// Once this many bytes of the standard output are read, the pipe is closed: a command that writes more is killed by
/// SIGPIPE, unless it ignores that signal.
const OUTPUT_BYTES_MAX: usize = 1 << 16;

/// The most bytes that are read at a time, so that a command that never stops printing cannot hold up the thread. It
/// is the default capacity of a pipe.
const READ_BYTES_MAX: usize = 1 << 16;

/// What a command has printed so far.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    /// The first line of the standard output, without its end.
    first: Vec<u8>,
    /// The length of the standard output that was read so far, in bytes.
    output_bytes: usize,
    /// Whether the first line has ended.
    first_has_ended: bool,
    /// The last whole line of the standard error that is not empty.
    last: Vec<u8>,
    /// The line of the standard error that has not ended yet.
    errors: Lines,
}

impl Printed {
    /// The first line of the standard output, without white space around it.
    pub(crate) fn first_line(&self) -> String {
        text(&self.first)
    }

    /// As [`Self::first_line`]; `None`: the line has not ended.
    pub(crate) fn whole_first_line(&self) -> Option<String> {
        self.first_has_ended.then(|| self.first_line())
    }

    /// The first line of the standard output and the last line of the standard error. A line that has not ended is
    /// shown only if its stream has no whole line.
    pub(crate) fn reason(&self) -> String {
        let last = if self.last.is_empty() {
            self.errors.current()
        } else {
            &self.last
        };
        match (self.first_line(), text(last)) {
            (first, last) if last.is_empty() => first,
            (first, last) if first.is_empty() => last,
            (first, last) => format!("{first}; standard error: {last}"),
        }
    }

    /// Adds what was read from a stream. Returns whether more is to be read from it.
    fn add(&mut self, stream: PrintedStream, bytes: &[u8]) -> bool {
        match stream {
            PrintedStream::Output => self.add_output(bytes),
            PrintedStream::Errors => {
                if let Some(last) = self.errors.push(bytes).pop() {
                    self.last = last;
                }
                true
            }
        }
    }

    fn add_output(&mut self, bytes: &[u8]) -> bool {
        if !self.first_has_ended {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            self.first_has_ended = end.is_some();
            let room = LINE_BYTES_MAX - self.first.len();
            self.first
                .extend_from_slice(&bytes[..end.unwrap_or(bytes.len()).min(room)]);
        }
        self.output_bytes += bytes.len();
        self.output_bytes < OUTPUT_BYTES_MAX
    }

    /// Takes an unfinished last line of the standard error as a whole line: nothing more comes.
    pub(super) fn finish(&mut self) {
        if let Some(last) = self.errors.finish() {
            self.last = last;
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim().to_owned()
}

/// A stream of a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum PrintedStream {
    /// Its standard output.
    Output,
    /// Its standard error.
    Errors,
}

/// The read end of the pipe that a command prints a stream to.
pub(super) struct StreamPipe {
    stream: PrintedStream,
    /// `None`: nothing more is read.
    receiver: Option<Receiver>,
}

impl StreamPipe {
    /// A stream that is read from `pipe`; `None`: it is not read here. To be called within a runtime.
    ///
    /// # Errors
    /// It is not the read end of a pipe, or the runtime cannot watch it.
    pub(super) fn new(stream: PrintedStream, pipe: Option<OwnedFd>) -> io::Result<Self> {
        let receiver = pipe.map(Receiver::from_owned_fd).transpose()?;
        Ok(Self { stream, receiver })
    }

    /// Completes when there is something to read, or the end; never if nothing more is read.
    pub(super) async fn readable(&self) {
        match &self.receiver {
            Some(receiver) => drop(receiver.readable().await), // the next read returns the same error
            None => pending().await,
        }
    }

    /// Reads what is there, at most [`READ_BYTES_MAX`]. Returns whether there may be more.
    pub(super) fn read(&mut self, printed: &Mutex<Printed>) -> bool {
        let mut buffer = [0; 4096];
        for _ in 0..READ_BYTES_MAX / buffer.len() {
            let Some(receiver) = &self.receiver else { return false };
            let count = match receiver.try_read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => 0, // as at the end
            };
            let is_open = count > 0 && printed.lock().add(self.stream, &buffer[..count]);
            if !is_open {
                self.receiver = None;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_parts_of_any_length() {
        let (output, errors) = (b"  first \nsecond\nthird", b"one\ntwo \r\n\n \n");
        for length in 1..=output.len() {
            let mut printed = Printed::default();
            for part in output.chunks(length) {
                assert!(printed.add(PrintedStream::Output, part));
            }
            assert_eq!(printed.reason(), "first");
            for part in errors.chunks(length) {
                assert!(printed.add(PrintedStream::Errors, part));
            }
            assert_eq!(
                (&*printed.first_line(), &*printed.reason()),
                ("first", "first; standard error: two")
            );
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut printed = Printed::default();
        for _ in 0..100 {
            printed.add(PrintedStream::Errors, &[b'x'; 1000]);
        }
        assert_eq!(printed.reason().len(), LINE_BYTES_MAX);
        let reads = (1..).find(|_| !printed.add(PrintedStream::Output, &[b'y'; 1000]));
        assert_eq!(reads, Some(OUTPUT_BYTES_MAX.div_ceil(1000)));
        assert_eq!(printed.first_line().len(), LINE_BYTES_MAX);
        printed.add(PrintedStream::Errors, b"\nlast\nhal");
        assert!(printed.reason().ends_with("y; standard error: last"));
        printed.finish();
        assert!(printed.reason().ends_with("y; standard error: hal"));
    }
}
