//! Copying: read into the thread's scratch buffer, send at once, and keep only what the receiver did not take.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::time::Instant;

use super::wire::{TransferError, Wire};
use crate::relay::close_notify::ends_with_close_notify;
use crate::relay::closed::Side;
use crate::relay::core::Core;

/// Bytes of one read at most: a usual receive buffer, and small enough for the CPU's cache.
pub(super) const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    /// One buffer for all sessions of the thread. It is borrowed only within a poll; what must be kept longer is copied
    /// out.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// The result of a copy.
pub(super) struct Copied {
    /// Bytes read; 0 is the end of the stream.
    pub(super) read: usize,
    /// The bytes that the receiver did not accept.
    pub(super) rest: Option<Box<[u8]>>,
}

/// Reads once, at most `read_max` bytes, and sends as many of them as the receiver accepts. Nothing may be unsent before.
pub(super) fn poll_copy(
    cx: &mut Context<'_>,
    core: &mut Core<'_>,
    from: Side,
    sender: &impl Wire,
    receiver: &impl Wire,
    read_max: usize,
) -> Poll<Result<Copied, TransferError>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let buffer = &mut scratch[..read_max.min(SCRATCH_BYTES)];
        let read = ready!(poll_recv(cx, sender, buffer)).map_err(TransferError::Read)?;
        if read == 0 {
            core.ended(from, Instant::now());
            return Poll::Ready(Ok(Copied { read, rest: None }));
        }
        core.received(from, read); // also if they cannot be sent
        let bytes = &buffer[..read];
        if ends_with_close_notify(bytes) {
            core.received_close_notify(from);
        }
        if let Poll::Ready(sent) = poll_send(cx, receiver, bytes) {
            core.sent(from, sent.map_err(TransferError::Write)?);
        }
        let unsent = core.unsent(from);
        let rest = (unsent > 0).then(|| bytes[read - unsent..].into());
        Poll::Ready(Ok(Copied { read, rest }))
    })
}

/// Receives at least a byte; 0 is the end of the stream.
fn poll_recv(cx: &mut Context<'_>, wire: &impl Wire, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let all = buffer.len();
    let mut recv_some = || wire.recv(&mut *buffer, RecvFlags::empty());
    poll_part(cx, wire, Interest::READABLE, all, &mut recv_some)
}

/// Sends as much as the socket accepts, at least a byte.
pub(super) fn poll_send(cx: &mut Context<'_>, wire: &impl Wire, bytes: &[u8]) -> Poll<io::Result<usize>> {
    let mut send_some = || wire.send(bytes);
    poll_part(cx, wire, Interest::WRITABLE, bytes.len(), &mut send_some)
}

/// Moves up to `all` bytes. If only a part was moved, the socket is known to be empty (or full) without another system
/// call: epoll is edge-triggered and reports when that changes. The only way to tell tokio so is to return WouldBlock
/// from the closure.
fn poll_part(
    cx: &mut Context<'_>,
    wire: &impl Wire,
    interest: Interest,
    all: usize,
    operation: &mut dyn FnMut() -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        if interest == Interest::READABLE {
            ready!(wire.poll_read_ready(cx))?;
        } else {
            ready!(wire.poll_write_ready(cx))?;
        }
        let mut part = None;
        let whole = wire.try_io(interest, || {
            let moved = operation()?;
            if 0 < moved && moved < all {
                part = Some(moved);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(moved)
        });
        match (part, whole) {
            (Some(moved), _) | (None, Ok(moved)) => return Poll::Ready(Ok(moved)),
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            (None, Err(error)) => return Poll::Ready(Err(error)),
        }
    }
}
