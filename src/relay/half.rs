//! One direction of a session; run twice.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::task::yield_now;

use super::copy::{Copied, SCRATCH_BYTES, poll_copy, poll_send};
use super::splice::{Emptied, Filled, Pipe};
use super::traffic::Moved;
use super::wire::Wire;

/// A turn moves about so much before others get theirs. More would be no cheaper, and makes those beside it wait.
pub(super) const TURN_BYTES: usize = 64 * 1024;

/// What is read at once while the other side takes less than it is given: what it does not take has to be copied.
const CAUTIOUS_READ_BYTES: usize = 16 * 1024;

/// Whole writes in a row that end caution.
const WHOLE_WRITES_AGAIN: u8 = 3;

/// Reads in a row, each of at least [`LARGE_READ_BYTES`], that prove a half to be bulk.
const LARGE_READS_OF_BULK: u8 = 2;

/// Half of what one read can be.
const LARGE_READ_BYTES: usize = SCRATCH_BYTES / 2;

/// Fills of the pipe in a row, each under [`CAUTIOUS_READ_BYTES`], that prove bulk to be over.
const SMALL_FILLS_OF_TALK: u8 = 2;

/// Which socket broke while a half was moving bytes.
#[derive(Debug)]
pub(super) enum Broken {
    /// The one that is read from.
    Reading(io::Error),
    /// The one that is written to.
    Writing(io::Error),
}

/// One direction.
pub(super) struct Half {
    held: Held,
    pace: Pace,
    /// The sender has finished; what is held is still to be sent.
    ended: bool,
    /// The receiver has been told so, or is gone.
    done: bool,
    /// The last poll waited for the sender, so that its reset will be noticed by reading.
    reading: bool,
    /// The sender has broken: its end must not be passed on as a clean one.
    cut_off: bool,
}

/// What was read and not yet sent.
enum Held {
    Nothing,
    Bytes { bytes: Box<[u8]>, sent: usize },
    Pipe(Pipe),
}

impl Half {
    /// A direction whose first bytes were read before.
    pub(super) fn new(first: Vec<u8>) -> Self {
        Self {
            held: Held::bytes(first.into()),
            pace: Pace::default(),
            ended: false,
            done: false,
            reading: false,
            cut_off: false,
        }
    }

    /// Whether the sender has finished.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether all is sent and the receiver told, or the half was abandoned.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Bytes read and not yet sent.
    pub(super) fn unsent(&self) -> usize {
        match &self.held {
            Held::Nothing => 0,
            Held::Bytes { bytes, sent } => bytes.len() - sent,
            Held::Pipe(pipe) => pipe.held(),
        }
    }

    /// Whether it would see a reset of the socket it reads from.
    pub(super) fn is_reading(&self) -> bool {
        self.reading
    }

    /// Moves nothing more; what it held is lost with its receiver.
    pub(super) fn abandon(&mut self) {
        self.held = Held::Nothing;
        self.done = true;
        self.reading = false;
    }

    /// The sender has broken. What it had sent still goes to the receiver, but its end is not passed on.
    pub(super) fn cut_off(&mut self) {
        self.cut_off = true;
    }

    /// Nothing more will come of the sender.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Moves bytes until it must wait, has had its turn (then it comes back by itself), or is done: the receiver's side
    /// is shut only after everything read has been sent, and not at all by the half that is `last`: the sockets are
    /// about to be closed, which tells the receiver as well and costs a system call less.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Wire,
        to: &impl Wire,
        moved: &Moved,
        last: bool,
    ) -> Poll<Result<(), Broken>> {
        let mut turn = 0;
        self.reading = false;
        loop {
            ready!(self.poll_empty(cx, to)).map_err(Broken::Writing)?;
            if self.ended {
                if !self.cut_off && !last {
                    to.finish();
                }
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if turn >= TURN_BYTES {
                // Not by waking itself: what is awake keeps the runtime from looking whether others have become ready.
                return pin!(yield_now()).poll(cx).map(Ok);
            }
            // Read only what the receiver can take; while it cannot, the sender's kernel holds it back.
            ready!(to.poll_write_ready(cx)).map_err(Broken::Writing)?;
            self.reading = true;
            let read = ready!(self.poll_fill(cx, from, to, moved))?;
            self.reading = false;
            self.ended = read == 0;
            turn += read;
        }
    }

    /// Reads once, and sends what can be sent at once.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Wire,
        to: &impl Wire,
        moved: &Moved,
    ) -> Poll<Result<usize, Broken>> {
        if self.pace.is_bulk() {
            if let Some(mut pipe) = Pipe::take() {
                // While the sender is silent the pipe is back in the pool: an idle session holds none.
                match ready!(pipe.poll_fill(cx, from)).map_err(Broken::Reading)? {
                    Filled::Bytes(bytes) => {
                        moved.add(bytes);
                        self.pace.filled_pipe(bytes);
                        self.held = Held::Pipe(pipe);
                        return Poll::Ready(Ok(bytes));
                    }
                    Filled::End => return Poll::Ready(Ok(0)),
                    Filled::Refused => {}
                }
            }
            self.pace.no_pipe();
        }
        let read_max = self.pace.read_max();
        let Copied { read, rest } = ready!(poll_copy(cx, from, to, read_max, moved))?;
        self.pace.copied(read, rest.is_none());
        if let Some(rest) = rest {
            self.held = Held::bytes(rest);
        }
        Poll::Ready(Ok(read))
    }

    /// Sends what is held.
    fn poll_empty(&mut self, cx: &mut Context<'_>, to: &impl Wire) -> Poll<io::Result<()>> {
        match &mut self.held {
            Held::Nothing => return Poll::Ready(Ok(())),
            Held::Pipe(pipe) => match ready!(pipe.poll_empty(cx, to))? {
                Emptied::Whole => {}
                Emptied::Refused(rest) => {
                    self.held = Held::bytes(rest);
                    return self.poll_empty(cx, to);
                }
            },
            Held::Bytes { bytes, sent } => {
                while *sent < bytes.len() {
                    *sent += ready!(poll_send(cx, to, &bytes[*sent..]))?;
                }
            }
        }
        self.held = Held::Nothing;
        Poll::Ready(Ok(()))
    }
}

impl Held {
    fn bytes(bytes: Box<[u8]>) -> Self {
        if bytes.is_empty() {
            Self::Nothing
        } else {
            Self::Bytes { bytes, sent: 0 }
        }
    }
}

/// What the last few reads and writes say about the next: how much to read, and by which means.
#[derive(Debug, Default)]
struct Pace {
    bulk: bool,
    large_reads: u8,
    small_fills: u8,
    /// Whole writes still missing until reads are full-sized again.
    cautious_for: u8,
}

impl Pace {
    fn is_bulk(&self) -> bool {
        self.bulk
    }

    fn read_max(&self) -> usize {
        if self.cautious_for > 0 {
            CAUTIOUS_READ_BYTES
        } else {
            SCRATCH_BYTES
        }
    }

    /// A copy: how much was read, and whether all of it was taken.
    fn copied(&mut self, read: usize, whole: bool) {
        self.cautious_for = if whole {
            self.cautious_for.saturating_sub(1)
        } else {
            WHOLE_WRITES_AGAIN
        };
        self.large_reads = if read >= LARGE_READ_BYTES {
            self.large_reads + 1
        } else {
            0
        };
        if self.large_reads == LARGE_READS_OF_BULK {
            *self = Self {
                bulk: true,
                ..Self::default()
            };
        }
    }

    fn filled_pipe(&mut self, filled: usize) {
        self.small_fills = if filled < CAUTIOUS_READ_BYTES {
            self.small_fills + 1
        } else {
            0
        };
        if self.small_fills == SMALL_FILLS_OF_TALK {
            *self = Self::default();
        }
    }

    /// There is none, or it cannot be filled. Copy on; the next proof of bulk asks for a pipe again.
    fn no_pipe(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_large_reads_are_bulk_and_two_small_fills_end_it() {
        let mut pace = Pace::default();
        for read in [SCRATCH_BYTES, LARGE_READ_BYTES - 1, LARGE_READ_BYTES] {
            pace.copied(read, true);
        }
        assert!(!pace.is_bulk(), "a smaller read in between starts the count anew");
        pace.copied(LARGE_READ_BYTES, false);
        assert!(pace.is_bulk());
        for filled in [100, 1 << 17, 100] {
            pace.filled_pipe(filled);
        }
        assert!(pace.is_bulk());
        pace.filled_pipe(100);
        assert!(!pace.is_bulk());
    }

    #[test]
    fn a_short_write_makes_reads_small_until_three_whole_ones() {
        let mut pace = Pace::default();
        pace.copied(5, false);
        for _ in 0..WHOLE_WRITES_AGAIN {
            assert_eq!(pace.read_max(), CAUTIOUS_READ_BYTES);
            pace.copied(5, true);
        }
        assert_eq!(pace.read_max(), SCRATCH_BYTES);
    }
}
