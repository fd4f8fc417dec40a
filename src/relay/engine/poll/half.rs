//! One direction of a session: where its unsent bytes are, and how they move.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::task::yield_now;
use tokio::time::Instant;

use super::copy::{Copied, poll_copy, poll_send};
use super::pace::Pace;
use super::splice::{Filled, Pipe, Sent};
use super::wire::Wire;
use crate::relay::closed::Side;
use crate::relay::core::{Core, Next};

/// A half moves so many bytes before others get their turn. More would be no cheaper, and makes others wait.
pub(in crate::relay) const TURN_BYTES: usize = 64 * 1024;

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
    unsent: Unsent,
    pace: Pace,
    /// The last poll waited for the sender, so that its reset will be noticed by reading.
    is_reading: bool,
}

/// The bytes that were read and not sent yet. The core knows how many.
enum Unsent {
    Nothing,
    Bytes { bytes: Box<[u8]>, sent: usize },
    Pipe(Pipe),
}

impl Half {
    /// A direction whose first bytes were read before.
    pub(super) fn new(first: Vec<u8>) -> Self {
        Self {
            unsent: Unsent::bytes(first.into()),
            pace: Pace::default(),
            is_reading: false,
        }
    }

    /// Whether it would see a reset of the socket it reads from.
    pub(super) fn is_reading(&self) -> bool {
        self.is_reading
    }

    /// Does what the core says until it must wait, has had its turn (then it is polled again), or there is nothing more
    /// to do in this direction.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        core: &mut Core<'_>,
        from: Side,
        sender: &impl Wire,
        receiver: &impl Wire,
    ) -> Poll<Result<(), Broken>> {
        let mut turn = 0;
        self.is_reading = false;
        loop {
            match core.next(from) {
                Next::Nothing => {
                    self.unsent = Unsent::Nothing;
                    return Poll::Ready(Ok(()));
                }
                Next::Send => ready!(self.poll_send(cx, core, from, receiver)).map_err(Broken::Writing)?,
                Next::ShutDown => {
                    receiver.shut_down();
                    core.shut_down(from);
                }
                // A task that wakes itself stays awake, and keeps the runtime from checking whether other sockets have
                // become ready. Yielding does not.
                Next::Read if turn >= TURN_BYTES => return pin!(yield_now()).poll(cx).map(Ok),
                Next::Read => {
                    // Read only what the receiver can take; while it cannot, the sender's kernel holds it back.
                    ready!(receiver.poll_write_ready(cx)).map_err(Broken::Writing)?;
                    self.is_reading = true;
                    turn += ready!(self.poll_read(cx, core, from, sender, receiver))?;
                    self.is_reading = false;
                }
            }
        }
    }

    /// Reads once, and sends what can be sent at once. Returns how many bytes were read; 0 is the end of the stream.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        core: &mut Core<'_>,
        from: Side,
        sender: &impl Wire,
        receiver: &impl Wire,
    ) -> Poll<Result<usize, Broken>> {
        if self.pace.is_bulk() {
            if let Some(mut pipe) = Pipe::take() {
                // While the sender is silent the pipe is back in the pool: an idle session holds none.
                match ready!(pipe.poll_fill(cx, sender)).map_err(Broken::Reading)? {
                    Filled::Bytes(bytes) => {
                        core.received(from, bytes);
                        self.pace.filled_pipe(bytes);
                        self.unsent = Unsent::Pipe(pipe);
                        return Poll::Ready(Ok(bytes));
                    }
                    Filled::End => {
                        core.ended(from, Instant::now());
                        return Poll::Ready(Ok(0));
                    }
                    Filled::Refused => {}
                }
            }
            self.pace.no_pipe();
        }
        let read_max = self.pace.read_max();
        let Copied { read, rest } = ready!(poll_copy(cx, core, from, sender, receiver, read_max))?;
        self.pace.copied(read, rest.is_none());
        if let Some(rest) = rest {
            self.unsent = Unsent::bytes(rest);
        }
        Poll::Ready(Ok(read))
    }

    /// Sends once of what is unsent.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        core: &mut Core<'_>,
        from: Side,
        receiver: &impl Wire,
    ) -> Poll<io::Result<()>> {
        let now_sent = match &mut self.unsent {
            Unsent::Nothing => unreachable!("the core counts what is here"),
            Unsent::Bytes { bytes, sent } => {
                let now_sent = ready!(poll_send(cx, receiver, &bytes[*sent..]))?;
                *sent += now_sent;
                now_sent
            }
            Unsent::Pipe(pipe) => match ready!(pipe.poll_send(cx, receiver))? {
                Sent::Bytes(bytes) => bytes,
                Sent::Refused(rest) => {
                    self.unsent = Unsent::bytes(rest);
                    return Poll::Ready(Ok(()));
                }
            },
        };
        core.sent(from, now_sent);
        if core.unsent(from) == 0 {
            self.unsent = Unsent::Nothing;
        }
        Poll::Ready(Ok(()))
    }
}

impl Unsent {
    fn bytes(bytes: Box<[u8]>) -> Self {
        if bytes.is_empty() {
            Self::Nothing
        } else {
            Self::Bytes { bytes, sent: 0 }
        }
    }
}
