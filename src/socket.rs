//! What both sockets of a session are told: keepalive, user timeout, no delay; and how to end one abruptly.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};

/// TCP keepalive: how a dead peer of an idle session is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds, at least one.
    pub idle: Duration,
    /// Between probes; whole seconds, at least one.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub probes: u32,
}

/// Options of a session's sockets. Sockets that a listener accepts inherit them from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// `None`: off.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT (RFC 5482). It also ends a live peer that merely does not read. `None`: off.
    pub user_timeout: Option<Duration>,
}

impl SocketOptions {
    /// Sets the options on a socket, and two that every socket of ours has: TCP_NODELAY, for what is read is sent at
    /// once, and SO_OOBINLINE, for an urgent byte is a byte of the stream like any other (RFC 6093, section 6).
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        socket.set_out_of_band_inline(true)?;
        if let Some(keepalive) = self.keepalive {
            let options = TcpKeepalive::new()
                .with_time(keepalive.idle)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.probes);
            socket.set_tcp_keepalive(&options)?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}

impl SocketOptions {
    /// The same on a socket that had other options before.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn apply_anew(&self, socket: &SockRef<'_>) -> io::Result<()> {
        if self.keepalive.is_none() {
            socket.set_keepalive(false)?;
        }
        if self.user_timeout.is_none() {
            socket.set_tcp_user_timeout(None)?;
        }
        self.apply(socket)
    }
}

/// A socket to connect to this address with.
///
/// # Errors
/// Those of `socket`.
pub fn towards(address: SocketAddr) -> io::Result<TcpSocket> {
    match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// Closes with a reset: what is queued is thrown away, and the peer cannot mistake the end for a complete answer.
#[expect(clippy::needless_pass_by_value, reason = "it closes what it is given")]
pub fn reset(socket: TcpStream) {
    reset_when_closed(&socket);
}

/// From now on closing it is [`reset`].
pub fn reset_when_closed(socket: &TcpStream) {
    // Only a socket that is already gone refuses this, and then there is nobody left to tell.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Whether the peer has finished or broken, with nothing left to read before that.
#[must_use]
pub fn has_ended(socket: &TcpStream) -> bool {
    match recv(socket, &mut [0u8][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((bytes, _)) => bytes == 0,
        Err(error) => error != Errno::AGAIN,
    }
}

/// Why a socket broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its peer reset it.
    Reset,
    /// Its peer no longer answers: keepalive or retransmission gave up.
    Lost,
}

impl Fault {
    /// What an error of reading or writing says of the socket.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Lost,
            _ => Self::Reset, // ECONNRESET, or EPIPE where the reset has been told already
        }
    }
}

/// Waits until a socket breaks, without reading from it; its end of stream is no fault.
///
/// Takes the error off the socket: who reads afterwards gets what had arrived before, then the end of the stream.
pub async fn socket_fault(socket: &TcpStream) -> Fault {
    loop {
        if let Err(error) = socket.ready(Interest::ERROR).await {
            return Fault::of(&error);
        }
        match socket.take_error() {
            Ok(Some(error)) | Err(error) => return Fault::of(&error),
            // Told and taken already; forget the readiness and wait for the next.
            Ok(None) => {
                let _ = socket.try_io::<()>(Interest::ERROR, || Err(io::ErrorKind::WouldBlock.into()));
            }
        }
    }
}
