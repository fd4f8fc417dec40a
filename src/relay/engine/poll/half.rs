//! One direction of a session: where its unsent bytes are, and how they move.

use std::io;
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::task::yield_now;
use tokio::time::Instant;

use super::copy::{Copied, poll_copy};
use super::read_mode::ReadMode;
use super::splice::{Filled, Pipe, Sent};
use super::wire::{TransferError, Wire};
use crate::guard::DirectionThrottle;
use crate::relay::closed::Side;
use crate::relay::core::{Core, Next};

/// Bytes that a half moves before it yields to other sessions. A longer turn would be no cheaper.
pub(in crate::relay) const TURN_BYTES: usize = 64 * 1024;

/// What this engine keeps of a direction. The core keeps the rest, a `Direction`, and decides what comes next.
pub(super) struct Half {
    unsent: Unsent,
    read_mode: ReadMode,
    /// Whether the last poll ended because the sender had sent nothing more. The wait then also notices a reset of the
    /// sender's socket.
    waits_for_sender: bool,
    /// Whether the ACK of the next bytes that are read must not be delayed.
    acks_next: bool,
}

/// The bytes that were read and not sent yet. The core knows how many.
enum Unsent {
    Nothing,
    Bytes {
        bytes: Box<[u8]>,
        sent: usize,
    },
    Pipe(Pipe),
    /// [`Wire::poll_send`] of the receiver has taken this many bytes, but the kernel does not have all of them yet.
    Taken(usize),
}

impl Half {
    /// Creates a half. `first` are bytes that were read before. `acks_next`: the ACK of the first bytes that it reads
    /// must not be delayed.
    pub(super) fn new(first: Vec<u8>, acks_next: bool) -> Self {
        Self {
            unsent: Unsent::bytes(first.into()),
            read_mode: ReadMode::default(),
            waits_for_sender: false,
            acks_next,
        }
    }

    /// Whether it waits for the sender, and so notices a reset of the sender's socket.
    pub(super) fn waits_for_sender(&self) -> bool {
        self.waits_for_sender
    }

    /// Does what the core decides until it must wait, has used up its turn (then it will be polled again), or has
    /// nothing more to do. `throttle` limits how fast it reads.
    pub(super) fn poll<W: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        core: &mut Core<'_>,
        from: Side,
        sender: &W,
        receiver: &W,
        mut throttle: Option<&mut DirectionThrottle>,
    ) -> Poll<Result<(), TransferError>> {
        let mut turn_bytes = 0;
        self.waits_for_sender = false;
        core.set_held_back(from, false);
        loop {
            match core.next(from) {
                Next::Nothing => {
                    self.unsent = Unsent::Nothing;
                    // Ends the reservation: the receiver may have broken while this half waited for bandwidth.
                    if let Some(throttle) = &mut throttle {
                        throttle.settle(0);
                    }
                    return Poll::Ready(Ok(()));
                }
                Next::Send => ready!(self.poll_send(cx, core, from, receiver)).map_err(TransferError::Write)?,
                Next::ShutDown => {
                    ready!(receiver.poll_shut_down(cx));
                    core.shut_down(from);
                }
                // A task that wakes itself stays in the run queue. While the queue is not empty, the runtime checks
                // only after every 61 polls whether other sockets have become ready. `yield_now` wakes this task only
                // after that check.
                Next::Read if turn_bytes >= TURN_BYTES => {
                    core.set_held_back(from, true);
                    return pin!(yield_now()).poll(cx).map(Ok);
                }
                Next::Read => {
                    // Read only while the receiver can accept more. Otherwise, TCP flow control stops the sender.
                    ready!(receiver.poll_writable(cx)).map_err(TransferError::Write)?;
                    let granted = match &mut throttle {
                        Some(throttle) => {
                            ready!(self.poll_grant(cx, core, from, sender, throttle)).map_err(TransferError::Read)?
                        }
                        None => usize::MAX,
                    };
                    self.waits_for_sender = true;
                    let read = self.poll_read(cx, core, from, sender, receiver, granted);
                    if let Some(throttle) = &mut throttle {
                        throttle.settle(if let Poll::Ready(Ok(read)) = read { read } else { 0 });
                    }
                    turn_bytes += ready!(read)?;
                    self.waits_for_sender = false;
                    if mem::take(&mut self.acks_next) {
                        sender.ack_at_once();
                    }
                }
            }
        }
    }

    /// Ready with the number of bytes that may be read, once there is something to read and the bandwidth allows it.
    /// While the half waits for bandwidth, it does not notice a reset of the sender's socket.
    fn poll_grant(
        &mut self,
        cx: &mut Context<'_>,
        core: &mut Core<'_>,
        from: Side,
        sender: &impl Wire,
        throttle: &mut DirectionThrottle,
    ) -> Poll<io::Result<usize>> {
        self.waits_for_sender = true;
        ready!(sender.poll_readable(cx))?;
        self.waits_for_sender = false;
        let granted = throttle.poll_grant(cx, || sender.readable_bytes());
        core.set_held_back(from, granted.is_pending());
        granted.map(Ok)
    }

    /// Reads once, at most `read_max` bytes. A copy also sends what the receiver accepts at once; a splice leaves the
    /// bytes in a pipe. Returns the number of bytes read; 0 is the end of the stream.
    fn poll_read<W: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        core: &mut Core<'_>,
        from: Side,
        sender: &W,
        receiver: &W,
        read_max: usize,
    ) -> Poll<Result<usize, TransferError>> {
        if self.read_mode.is_bulk() {
            let sockets = sender.spliced().zip(receiver.spliced());
            if let Some(((from_socket, _), mut pipe)) = sockets.zip(Pipe::take()) {
                // If there is nothing to read, the pipe is dropped here, and so given back: an idle session holds none.
                match ready!(pipe.poll_fill(cx, from_socket, read_max)).map_err(TransferError::Read)? {
                    Filled::Bytes(bytes) => {
                        core.received(from, bytes);
                        self.read_mode.record_fill(bytes);
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
            self.read_mode.stop_bulk();
        }
        let read_max = self.read_mode.read_max().max(W::RECV_BYTES_MIN).min(read_max);
        let Copied { read, unflushed, rest } = ready!(poll_copy(cx, core, from, sender, receiver, read_max))?;
        self.read_mode.record_copy(read, unflushed == 0 && rest.is_none());
        if let Some(rest) = rest {
            self.unsent = Unsent::bytes(rest);
        } else if unflushed > 0 {
            self.unsent = Unsent::Taken(unflushed);
        }
        Poll::Ready(Ok(read))
    }

    /// Sends unsent bytes once.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        core: &mut Core<'_>,
        from: Side,
        receiver: &impl Wire,
    ) -> Poll<io::Result<()>> {
        let now_sent = match &mut self.unsent {
            Unsent::Nothing => unreachable!("the core counts the unsent bytes"),
            Unsent::Bytes { bytes, sent } => {
                let taken = ready!(receiver.poll_send(cx, &bytes[*sent..]))?;
                *sent += taken;
                if receiver.poll_flush(cx)?.is_pending() {
                    debug_assert_eq!(*sent, bytes.len(), "unflushed bytes, though not all were taken");
                    self.unsent = Unsent::Taken(taken);
                    return Poll::Pending;
                }
                taken
            }
            Unsent::Taken(taken) => {
                ready!(receiver.poll_flush(cx))?;
                *taken
            }
            Unsent::Pipe(pipe) => {
                let socket = receiver
                    .spliced()
                    .expect("only a receiver that can be spliced gets a pipe");
                match ready!(pipe.poll_send(cx, socket))? {
                    Sent::Bytes(bytes) => bytes,
                    Sent::Refused(rest) => {
                        self.unsent = Unsent::bytes(rest);
                        return Poll::Ready(Ok(()));
                    }
                }
            }
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
