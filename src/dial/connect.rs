//! Opens a connection to a server: in the same way for sessions and for checks.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::addr::ServerAddr;
use crate::proxy_protocol::{Version, local_header};
use crate::socket::{SocketOptions, delay_ack, reset, tcp_socket_for};

/// How connections to the servers of a pool are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The time limit of one attempt.
    pub timeout: Duration,
    /// Options of the sockets.
    pub socket: SocketOptions,
    /// The header that a server expects before anything else; `None`: none is sent.
    pub proxy_protocol: Option<Version>,
}

/// When the kernel sends the last ACK of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastAck {
    /// At once.
    AtOnce,
    /// With the first bytes sent, at most 40 ms late. The kernel then delays the ACKs of the server's first bytes, too
    /// (tcp(7), TCP_QUICKACK), so this is only for a connection that is closed before anything is sent.
    Delayed,
}

/// Opens a socket with these options and connects it to a server. No PROXY header is sent: a session sends it together
/// with the first bytes of its client. Dropping the future closes the socket.
///
/// # Errors
/// Those of `socket` and `connect`; [`io::ErrorKind::TimedOut`] after [`ConnectOptions::timeout`];
/// [`io::ErrorKind::ConnectionRefused`] also for a connection to itself.
pub async fn connect(server: ServerAddr, options: &ConnectOptions, last_ack: LastAck) -> io::Result<TcpStream> {
    let connected = timeout(options.timeout, async {
        let socket = tcp_socket_for(server.socket())?;
        options.socket.apply(&SockRef::from(&socket));
        if last_ack == LastAck::Delayed {
            delay_ack(&socket);
        }
        refuse_itself(socket.connect(server.socket()).await?, server)
    });
    connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Connects for a health check. Where the server expects a PROXY header it gets the one of a connection that is not on
/// behalf of a client ([`local_header`]).
///
/// # Errors
/// Those of [`connect`], and of sending the header.
pub async fn connect_for_check(server: ServerAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let mut socket = connect(server, options, LastAck::AtOnce).await?;
    if let Some(version) = options.proxy_protocol {
        socket.write_all(local_header(version)).await?;
    }
    Ok(socket)
}

/// Refuses a connection whose two ends are the same socket.
///
/// If nothing listens on a local port of the ephemeral range, the kernel may choose that very port as the source. The
/// socket's SYN then meets the socket itself: a simultaneous open (RFC 9293, section 3.5, figure 7). The connection would
/// echo what is sent, and keep the server from binding its port. It is reset, so that no TIME_WAIT keeps the port either.
fn refuse_itself(socket: TcpStream, server: ServerAddr) -> io::Result<TcpStream> {
    let local = socket.local_addr()?;
    // Comparing the ports first saves a system call. The peer's address is asked for because the server's may be 0.0.0.0.
    // There is none if the peer has reset the connection; the caller finds that out when it uses the socket.
    if local.port() == server.port() && socket.peer_addr().is_ok_and(|peer| peer.ip() == local.ip()) {
        reset(socket);
        let what = "connection refused: nothing listens on the port, and the socket connected to itself";
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, what));
    }
    Ok(socket)
}

/// For tests: the options of a pool that configures none, with a longer time limit.
#[cfg(test)]
pub(crate) const TEST_CONNECT: ConnectOptions = ConnectOptions {
    timeout: Duration::from_secs(20),
    socket: SocketOptions {
        keepalive: None,
        user_timeout: None,
    },
    proxy_protocol: None,
};
