//! The sides of a session whose TLS is terminated or begun here, on one side or on both.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::socket::Socket;
use super::tls::TlsWire;
use super::wire::{Wire, poll_recv, poll_send};
use crate::relay::core::SendQueue;
use crate::socket::{Fault, read_closed, socket_fault};
use crate::tls::{RECORD_BYTES_MAX, TlsConnection};

/// One of the two sides, with or without TLS.
pub(in crate::relay) enum MaybeTls<'a> {
    /// A socket without TLS.
    Tcp(&'a TcpStream),
    /// TLS over the socket.
    Tls(Box<TlsWire<'a>>),
}

impl MaybeTls<'_> {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(wire) => wire.socket(),
        }
    }

    /// Why TLS has failed, if it has.
    pub(in crate::relay) fn take_error(&self) -> Option<rustls::Error> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(wire) => wire.take_error(),
        }
    }

    /// The TLS connection, if any. All its records must have been flushed.
    pub(in crate::relay) fn into_connection(self) -> Option<TlsConnection> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(wire) => Some(wire.into_connection()),
        }
    }
}

impl Wire for MaybeTls<'_> {
    type Spliced = TcpStream;

    const ENDS_EXPLICITLY: bool = true;

    const RECV_BYTES_MIN: usize = RECORD_BYTES_MAX;

    fn spliced(&self) -> Option<&TcpStream> {
        None
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_readable(cx),
            Self::Tls(wire) => wire.poll_readable(cx),
        }
    }

    fn readable_bytes(&self) -> usize {
        match self {
            Self::Tcp(socket) => Socket::readable_bytes(*socket),
            Self::Tls(wire) => wire.readable_bytes(),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_writable(cx),
            Self::Tls(wire) => wire.poll_writable(cx),
        }
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => poll_recv(*socket, cx, buffer),
            Self::Tls(wire) => wire.poll_recv(cx, buffer),
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => poll_send(*socket, cx, bytes),
            Self::Tls(wire) => wire.poll_send(cx, bytes),
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_flush(cx),
            Self::Tls(wire) => wire.poll_flush(cx),
        }
    }

    fn poll_shut_down(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(socket) => socket.poll_shut_down(cx),
            Self::Tls(wire) => wire.poll_shut_down(cx),
        }
    }

    fn fault(&self) -> impl Future<Output = Fault> + Send {
        socket_fault(self.socket())
    }

    fn read_closed(&self) -> impl Future<Output = ()> + Send {
        read_closed(self.socket())
    }

    fn queue(&self) -> Option<SendQueue> {
        match self {
            Self::Tcp(socket) => Socket::queue(*socket),
            Self::Tls(wire) => wire.queue(),
        }
    }
}
