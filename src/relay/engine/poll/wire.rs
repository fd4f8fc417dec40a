//! What a relay asks of a connection.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::io::Result as Answer;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{SpliceFlags, splice};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::relay::core::Queue;
use crate::socket::{Fault, socket_fault};
use crate::tcp_info::TcpInfo;

/// The most that one splice takes out of a socket, though a pipe may hold more.
///
/// Linux lets a receive buffer grow with what is read of it within a round trip (`tcp_rcv_space_adjust`), up to the
/// maximum of `net.ipv4.tcp_rmem`: large splices at the beginning of an answer that its receiver takes more slowly leave
/// megabytes of it in the receive buffer.
const SPLICE_BYTES_MAX: usize = 128 * 1024;

/// A connection: system calls that never wait, and the readiness that says when to make them.
///
/// Sockets implement it, and the model of a socket that the relay is tested with.
pub(in crate::relay) trait Wire: Sync {
    /// Ready until a [`try_io`](Self::try_io) finds that there is nothing to read.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready until a [`try_io`](Self::try_io) finds that there is no room.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Makes the call if the wire is ready for it; a call that would block ends the readiness.
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R>;

    /// recv(2).
    fn recv(&self, room: &mut [u8], flags: RecvFlags) -> Answer<usize>;

    /// send(2).
    fn send(&self, bytes: &[u8]) -> Answer<usize>;

    /// Moves what has arrived into an empty pipe, by splice(2).
    fn splice_into(&self, pipe: &OwnedFd) -> Answer<usize>;

    /// Sends up to so many bytes out of a pipe, by splice(2).
    fn splice_from(&self, pipe: &OwnedFd, bytes: usize) -> Answer<usize>;

    /// Shuts it down for writing: nothing more will be sent.
    fn shut_down(&self);

    /// Waits until it breaks; see [`socket_fault`].
    fn fault(&self) -> impl Future<Output = Fault> + Send;

    /// What is still on its way to the other end; `None` where the system does not tell.
    fn queue(&self) -> Option<Queue>;
}

impl Wire for TcpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_write_ready(self, cx)
    }

    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        Self::try_io(self, interest, call)
    }

    fn recv(&self, room: &mut [u8], flags: RecvFlags) -> Answer<usize> {
        recv(self, room, flags).map(|(read, _)| read)
    }

    fn send(&self, bytes: &[u8]) -> Answer<usize> {
        send(self, bytes, SendFlags::NOSIGNAL)
    }

    fn splice_into(&self, pipe: &OwnedFd) -> Answer<usize> {
        spliced(self, pipe, SPLICE_BYTES_MAX)
    }

    fn splice_from(&self, pipe: &OwnedFd, bytes: usize) -> Answer<usize> {
        spliced(pipe, self, bytes)
    }

    fn shut_down(&self) {
        // Only a socket whose peer is already gone refuses this, and then reading will say so.
        let _ = SockRef::from(self).shutdown(Shutdown::Write);
    }

    fn fault(&self) -> impl Future<Output = Fault> + Send {
        socket_fault(self)
    }

    fn queue(&self) -> Option<Queue> {
        let info = TcpInfo::of(self.as_fd())?;
        Some(Queue {
            unacknowledged: info.unacknowledged,
            not_sent_bytes: info.not_sent_bytes,
        })
    }
}

fn spliced(from: impl AsFd, to: impl AsFd, bytes: usize) -> Answer<usize> {
    splice(from, None, to, None, bytes, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
}
