//! Opening a connection to a server: one way, for sessions and for checks.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::addr::ServerAddr;
use crate::proxy_protocol::{Version, local_header};
use crate::socket::{SocketOptions, delay_ack, reset, towards};

/// How connections to the servers of a pool are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Of one attempt.
    pub timeout: Duration,
    /// Of the servers' sockets.
    pub socket: SocketOptions,
    /// The header that a server expects before anything else; `None`: none is sent.
    pub proxy_protocol: Option<Version>,
}

/// When the kernel sends the last ACK of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastAck {
    /// At once.
    AtOnce,
    /// With the first bytes, but at most 40 ms late. The kernel then delays the ACKs of what the server says first, too
    /// (tcp(7), TCP_QUICKACK), so this is only for a connection that is closed before anything is said.
    Delayed,
}

/// Connects a socket to a server, with its options set. No header is sent yet: a session sends it along with the first
/// bytes of its client. Cancelling leaves nothing behind.
///
/// # Errors
/// Those of `socket` and `connect`; [`io::ErrorKind::TimedOut`] after [`ConnectOptions::timeout`];
/// [`io::ErrorKind::ConnectionRefused`] also for a connection to itself.
pub async fn connect(server: ServerAddr, options: &ConnectOptions, last_ack: LastAck) -> io::Result<TcpStream> {
    let connected = timeout(options.timeout, async {
        let socket = towards(server.socket())?;
        options.socket.apply(&SockRef::from(&socket));
        if last_ack == LastAck::Delayed {
            delay_ack(&socket);
        }
        refuse_itself(socket.connect(server.socket()).await?, server)
    });
    connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Connects for acequia itself, not for a client: where a server expects a PROXY header it gets one that says so.
///
/// # Errors
/// Those of [`connect`], and of sending the header.
pub async fn connect_for_ourselves(server: ServerAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let mut socket = connect(server, options, LastAck::AtOnce).await?;
    if let Some(version) = options.proxy_protocol {
        socket.write_all(local_header(version)).await?;
    }
    Ok(socket)
}

/// Refuses a connection whose two ends are the same socket.
///
/// Where nobody listens on a local port of the ephemeral range, the kernel may choose that very port as the source. The
/// socket's SYN then meets the socket itself: a simultaneous open (RFC 9293, section 3.5, figure 7). It would answer with
/// what it is told, and keep the server from binding its port. It is reset, so that no TIME_WAIT keeps the port either.
fn refuse_itself(socket: TcpStream, server: ServerAddr) -> io::Result<TcpStream> {
    let local = socket.local_addr()?;
    // The ports first, which saves a system call. Then the peer's address, for that of the server may be 0.0.0.0. A peer
    // that has reset the connection has no address any more; the caller will find that out by using the socket.
    if local.port() == server.port() && socket.peer_addr().is_ok_and(|peer| peer.ip() == local.ip()) {
        reset(socket);
        let what = "connection refused: nobody listens there, and the socket was connected to itself";
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, what));
    }
    Ok(socket)
}

/// For tests: what a pool has that says nothing of it, with more patience.
#[cfg(test)]
pub(crate) const PLAIN: ConnectOptions = ConnectOptions {
    timeout: Duration::from_secs(20),
    socket: SocketOptions {
        keepalive: None,
        user_timeout: None,
    },
    proxy_protocol: None,
};
