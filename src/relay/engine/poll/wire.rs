//! The interface of a connection that bytes are moved through.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use tokio::io::Interest;

use super::socket::Socket;
use crate::relay::core::SendQueue;
use crate::socket::Fault;

/// Which connection failed while bytes were moved from one to the other.
#[derive(Debug)]
pub(super) enum TransferError {
    /// The one that is read from.
    Read(io::Error),
    /// The one that is written to.
    Write(io::Error),
}

/// A connection: a stream of bytes each way. Every socket is one, and so is TLS over a socket.
pub(in crate::relay) trait Wire: Sync {
    /// The type of the socket that [`spliced`](Self::spliced) returns.
    type Spliced: Socket;

    /// Whether the end of the stream must be sent before the socket is closed. A socket without TLS sends it by being
    /// closed.
    const ENDS_EXPLICITLY: bool;

    /// The size of the smallest buffer that [`poll_recv`](Self::poll_recv) fills without an intermediate buffer.
    const RECV_BYTES_MIN: usize;

    /// The socket, if bytes can be spliced out of it and into it. `None` if TLS is terminated or begun here on any side
    /// of the session: then both sides are [`MaybeTls`](super::MaybeTls), even one that is a socket without TLS.
    fn spliced(&self) -> Option<&Self::Spliced>;

    /// Ready if there is something to receive, as far as is known.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// About how many bytes can be received now; `usize::MAX` where the system does not report it.
    fn readable_bytes(&self) -> usize;

    /// Ready if bytes that are sent now would be accepted, at least in part.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Receives at least one byte; returns 0 at the end of the stream.
    fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes as many bytes as it can, at least one. The kernel has all of them once [`poll_flush`](Self::poll_flush) is
    /// ready. Until then, `poll_send` takes no further bytes.
    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ready when the kernel has everything that was taken.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends a delay of ACKs that began with the connect ([`LastAck`](crate::dial::LastAck)). There is no such delay if
    /// TLS is terminated or begun here.
    fn ack_at_once(&self) {}

    /// Ends the stream towards the peer. Ready when the kernel has everything, including the end.
    fn poll_shut_down(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Waits until the connection breaks, without reading from it.
    fn fault(&self) -> impl Future<Output = Fault> + Send;

    /// Waits until the end of the peer's stream, or its reset, has arrived, although bytes before it may still be
    /// unread.
    fn read_closed(&self) -> impl Future<Output = ()> + Send;

    /// The bytes that the peer does not have yet; `None` where the system does not report it.
    fn queue(&self) -> Option<SendQueue>;
}

impl<S: Socket> Wire for S {
    type Spliced = S;

    const ENDS_EXPLICITLY: bool = false;

    const RECV_BYTES_MIN: usize = 1;

    fn spliced(&self) -> Option<&S> {
        Some(self)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn readable_bytes(&self) -> usize {
        Socket::readable_bytes(self)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        poll_recv(self, cx, buffer)
    }

    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll_send(self, cx, bytes)
    }

    fn poll_flush(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the kernel already has everything that `poll_send` has taken
    }

    fn ack_at_once(&self) {
        Socket::ack_at_once(self);
    }

    fn poll_shut_down(&self, _: &mut Context<'_>) -> Poll<()> {
        self.shut_down();
        Poll::Ready(())
    }

    fn fault(&self) -> impl Future<Output = Fault> + Send {
        Socket::fault(self)
    }

    fn read_closed(&self) -> impl Future<Output = ()> + Send {
        Socket::read_closed(self)
    }

    fn queue(&self) -> Option<SendQueue> {
        Socket::queue(self)
    }
}

/// Receives at least one byte from a socket; returns 0 at the end of the stream.
pub(super) fn poll_recv(socket: &impl Socket, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let all = buffer.len();
    let mut recv_some = || socket.recv(&mut *buffer, RecvFlags::empty());
    poll_part(socket, cx, Interest::READABLE, all, &mut recv_some)
}

/// Sends as much as a socket accepts, at least a byte.
pub(super) fn poll_send(socket: &impl Socket, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    let mut send_some = || socket.send(bytes);
    poll_part(socket, cx, Interest::WRITABLE, bytes.len(), &mut send_some)
}

/// Moves up to `all` bytes. If only a part was moved, the socket is known to be empty (or full) without another system
/// call: epoll is edge-triggered and reports when that changes. The only way to tell tokio so is to return WouldBlock
/// from the closure.
fn poll_part(
    socket: &impl Socket,
    cx: &mut Context<'_>,
    interest: Interest,
    all: usize,
    operation: &mut dyn FnMut() -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        if interest == Interest::READABLE {
            ready!(socket.poll_read_ready(cx))?;
        } else {
            ready!(socket.poll_write_ready(cx))?;
        }
        let mut part = None;
        let result = socket.try_io(interest, || {
            let moved = operation()?;
            if 0 < moved && moved < all {
                part = Some(moved);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(moved)
        });
        match (part, result) {
            (Some(moved), _) | (None, Ok(moved)) => return Poll::Ready(Ok(moved)),
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            (None, Err(error)) => return Poll::Ready(Err(error)),
        }
    }
}
