//! Sockets as the engine uses them.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::io::{Result as CallResult, ioctl_fionread};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{SpliceFlags, splice};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::relay::core::SendQueue;
use crate::socket::{Fault, ack_at_once, read_closed, socket_fault};
use crate::tcp_info::TcpInfo;

/// The most bytes that one splice takes out of a socket. A pipe may hold more.
///
/// The more is read from a receive buffer within a round trip, the more Linux enlarges it (`tcp_rcv_space_adjust`), up
/// to the maximum of `net.ipv4.tcp_rmem`. Large splices at the beginning of an answer would let the buffer grow to
/// megabytes, which then fill up if the receiver is slower than the sender.
const SPLICE_BYTES_MAX: usize = 128 * 1024;

/// A socket: non-blocking system calls, and the readiness for them.
///
/// Implemented by [`TcpStream`], and by the model of a socket in the tests.
pub(in crate::relay) trait Socket: Sync {
    /// Ready until a [`try_io`](Self::try_io) finds that there is nothing to read.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready until a [`try_io`](Self::try_io) finds that the send buffer is full.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Makes the call if the socket is ready for it; a call that would block ends the readiness.
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R>;

    /// How many bytes can be read now; `usize::MAX` where the system does not report it.
    fn readable_bytes(&self) -> usize;

    /// recv(2).
    fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> CallResult<usize>;

    /// send(2).
    fn send(&self, bytes: &[u8]) -> CallResult<usize>;

    /// Moves at most `bytes_max` received bytes into an empty pipe, by splice(2).
    fn splice_into(&self, pipe: &OwnedFd, bytes_max: usize) -> CallResult<usize>;

    /// Sends up to `bytes` bytes out of a pipe, by splice(2).
    fn splice_from(&self, pipe: &OwnedFd, bytes: usize) -> CallResult<usize>;

    /// Ends a delay of ACKs, if the socket has one; see [`ack_at_once`].
    fn ack_at_once(&self) {}

    /// Shuts the connection down for writing.
    fn shut_down(&self);

    /// Waits until the connection breaks; see [`socket_fault`].
    fn fault(&self) -> impl Future<Output = Fault> + Send;

    /// Waits until the peer's end of stream, or its reset, has arrived; see [`read_closed`].
    fn read_closed(&self) -> impl Future<Output = ()> + Send;

    /// The send queue; `None` where the system does not report it.
    fn queue(&self) -> Option<SendQueue>;
}

impl Socket for TcpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_write_ready(self, cx)
    }

    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        Self::try_io(self, interest, call)
    }

    fn readable_bytes(&self) -> usize {
        ioctl_fionread(self).map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> CallResult<usize> {
        recv(self, buffer, flags).map(|(read, _)| read)
    }

    fn send(&self, bytes: &[u8]) -> CallResult<usize> {
        send(self, bytes, SendFlags::NOSIGNAL)
    }

    fn splice_into(&self, pipe: &OwnedFd, bytes_max: usize) -> CallResult<usize> {
        splice_nonblocking(self, pipe, SPLICE_BYTES_MAX.min(bytes_max))
    }

    fn splice_from(&self, pipe: &OwnedFd, bytes: usize) -> CallResult<usize> {
        splice_nonblocking(pipe, self, bytes)
    }

    fn ack_at_once(&self) {
        ack_at_once(self);
    }

    fn shut_down(&self) {
        // Fails only if the connection is broken, which reading reports.
        let _ = SockRef::from(self).shutdown(Shutdown::Write);
    }

    fn fault(&self) -> impl Future<Output = Fault> + Send {
        socket_fault(self)
    }

    fn read_closed(&self) -> impl Future<Output = ()> + Send {
        read_closed(self)
    }

    fn queue(&self) -> Option<SendQueue> {
        match TcpInfo::read(self.as_fd()) {
            Some(info) => Some(SendQueue {
                unacknowledged_segments: info.unacknowledged,
                not_sent_bytes: info.not_sent_bytes,
            }),
            // What is sent on a Unix socket is in the receive queue of the other end at once, and stays there when the
            // socket is closed.
            None => is_unix(self).then_some(SendQueue::EMPTY),
        }
    }
}

/// Whether this [`TcpStream`] holds a Unix socket.
fn is_unix(socket: &TcpStream) -> bool {
    SockRef::from(socket)
        .local_addr()
        .is_ok_and(|address| address.is_unix())
}

fn splice_nonblocking(from: impl AsFd, to: impl AsFd, bytes: usize) -> CallResult<usize> {
    splice(from, None, to, None, bytes, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
}
