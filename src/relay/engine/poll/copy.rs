//! Copying: read into the thread's scratch buffer, send at once, and keep only what the receiver did not take.

use std::cell::RefCell;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::wire::{TransferError, Wire};
use crate::relay::close_notify::ends_with_close_notify;
use crate::relay::closed::Side;
use crate::relay::core::Core;

/// The most bytes of one read: about what a receive buffer holds, and few enough for the CPU's cache.
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
    /// How many bytes the receiver has accepted but not flushed yet.
    pub(super) unflushed: usize,
    /// The bytes that the receiver did not accept.
    pub(super) rest: Option<Box<[u8]>>,
}

/// Reads once, at most `read_max` bytes, and sends as many of them as the receiver accepts. To be called only when no
/// bytes are unsent.
pub(super) fn poll_copy<W: Wire>(
    cx: &mut Context<'_>,
    core: &mut Core<'_>,
    from: Side,
    sender: &W,
    receiver: &W,
    read_max: usize,
) -> Poll<Result<Copied, TransferError>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let buffer = &mut scratch[..read_max.min(SCRATCH_BYTES)];
        let read = ready!(sender.poll_recv(cx, buffer)).map_err(TransferError::Read)?;
        if read == 0 {
            core.ended(from, Instant::now());
            return Poll::Ready(Ok(Copied {
                read,
                unflushed: 0,
                rest: None,
            }));
        }
        core.received(from, read); // even if they cannot be sent
        let bytes = &buffer[..read];
        // The bytes may be TLS that is passed through. With `ENDS_EXPLICITLY` they are not: TLS is terminated or begun
        // here, and the bytes are plaintext.
        if !W::ENDS_EXPLICITLY && ends_with_close_notify(bytes) {
            core.received_close_notify(from);
        }
        let accepted = match receiver.poll_send(cx, bytes) {
            Poll::Ready(accepted) => accepted.map_err(TransferError::Write)?,
            Poll::Pending => 0,
        };
        let is_sent = accepted > 0 && receiver.poll_flush(cx).map_err(TransferError::Write)?.is_ready();
        if is_sent {
            core.sent(from, accepted);
        }
        Poll::Ready(Ok(Copied {
            read,
            unflushed: if is_sent { 0 } else { accepted },
            rest: (accepted < read).then(|| bytes[accepted..].into()),
        }))
    })
}
