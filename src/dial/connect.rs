//! Opens a connection to a server: in the same way for sessions and for checks.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::bind_source::{BindSource, log_no_ports};
use crate::addr::{ClientAddr, ServerAddr, UnixPath};
use crate::proxy_protocol::{Version, local_header};
use crate::socket::{SocketOptions, begin_connect, delay_acks, reset, stream_of, tcp_socket_for, until_connected};
use crate::unix_socket::unix_socket;

/// How connections to the servers of a pool are opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The time limit of one [`connect`], however many source addresses it tries.
    pub timeout: Duration,
    /// Options of the sockets.
    pub socket: SocketOptions,
    /// Where connections come from; `None`: the system chooses.
    pub source: Option<BindSource>,
    /// The version of the PROXY header that a server expects before anything else; `None`: it expects none.
    pub proxy_protocol: Option<Version>,
}

/// When the kernel sends the last ACK of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastAck {
    /// At once.
    AtOnce,
    /// With the first bytes that are sent, or with the end of the stream, or after 200 ms without either. This saves a
    /// packet.
    ///
    /// The kernel then delays the ACK of the first answer, too, and a server with Nagle's algorithm would wait for that
    /// ACK before it sends the rest of its answer. So the caller calls [`ack_at_once`](crate::socket::ack_at_once) when
    /// it has read the first bytes of the server.
    Delayed,
}

impl LastAck {
    /// [`Self::Delayed`] if this is true.
    pub(crate) fn delayed_if(is_delayed: bool) -> Self {
        if is_delayed { Self::Delayed } else { Self::AtOnce }
    }
}

/// The pause before another attempt to connect to a Unix socket whose queue is full: the kernel does not report when
/// there is room (connect(2), EAGAIN).
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// Opens a socket with these options and connects it to a server. No PROXY header is sent: a session sends it together
/// with the first bytes of its client. Dropping the future closes the socket.
///
/// `client` is the client of a session; keepalive is then set later, if the session lasts (`late_keepalive`). `None`:
/// the connection is for a check, and keepalive is set here.
///
/// # Errors
/// Those of the system calls `socket` and `connect`; [`io::ErrorKind::TimedOut`] after [`ConnectOptions::timeout`];
/// [`io::ErrorKind::ConnectionRefused`] also if the socket connected to itself; [`io::ErrorKind::NetworkUnreachable`]
/// also if this host has no address from which it can reach the server; a
/// [`BindSourceError`](super::BindSourceError) in an [`io::Error`] if the socket cannot be bound as configured.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub fn connect(
    server: &ServerAddr,
    options: &ConnectOptions,
    client: Option<ClientAddr>,
    last_ack: LastAck,
) -> impl Future<Output = io::Result<TcpStream>> {
    async move {
        let connecting = timeout(options.timeout, async {
            let Some(address) = server.socket() else {
                return connect_unix(server).boxed().await; // boxed, so that futures of other sessions do not grow
            };
            let socket_options = SocketOptions {
                keepalive: options.socket.keepalive.filter(|_| client.is_none()),
                ..options.socket
            };
            // At least one attempt: if no source fits, `bind` says so.
            let attempts = options.source.as_ref().map_or(1, |source| source.count(address).max(1));
            let mut connected = Err(io::ErrorKind::AddrNotAvailable.into());
            let first_turn = options.source.as_ref().map_or(0, |source| source.take_turn(address));
            for attempt in 0..attempts {
                let socket = tcp_socket_for(address)?;
                socket_options.apply(&SockRef::from(&socket));
                if last_ack == LastAck::Delayed {
                    delay_acks(&socket);
                }
                if let Some(source) = &options.source
                    && let Err(error) = source
                        .bind(&socket, address, client, first_turn.wrapping_add(attempt))
                        .map_err(io::Error::other)
                {
                    source.log_bind_error(server, &error);
                    connected = Err(error);
                    continue; // another source may be an address of this machine
                }
                connected = match begin_connect(socket, address) {
                    Ok(socket) => until_connected(&socket).await.map(|()| socket),
                    Err(error) => Err(error),
                };
                // If this source has no port left, the next one is tried.
                if !has_no_address_or_port(&connected) {
                    break;
                }
            }
            if has_no_address_or_port(&connected) {
                if !has_source_for(address) {
                    return Err(io::Error::new(
                        io::ErrorKind::NetworkUnreachable,
                        "this host has no address from which it could reach the server: is IPv6 disabled?",
                    ));
                }
                log_no_ports(options.source.as_ref(), server);
            }
            reject_self_connection(connected?, address)
        });
        connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Connects to a Unix socket, as soon as there is room in its queue.
async fn connect_unix(server: &ServerAddr) -> io::Result<TcpStream> {
    let path = server.unix().map(UnixPath::as_path).unwrap_or(Path::new(""));
    loop {
        let socket = unix_socket()?;
        match socket.connect(&SockAddr::unix(path)?) {
            Ok(()) => return stream_of(socket.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(FULL_QUEUE_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// Connects for a health check or `acequia check`. A server that expects a PROXY header gets the one of a connection
/// without a client ([`local_header`]).
///
/// # Errors
/// Those of [`connect`], and of sending the header.
pub async fn connect_for_check(server: &ServerAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let mut socket = connect(server, options, None, LastAck::AtOnce).await?;
    if let Some(version) = options.proxy_protocol {
        socket.write_all(local_header(version)).await?;
    }
    Ok(socket)
}

/// Whether this host has an address from which it can reach `address`. If not, connect(2) gives EADDRNOTAVAIL, the
/// same as if no port was left. A socket of UDP needs an address, too, but no port of TCP.
fn has_source_for(address: SocketAddr) -> bool {
    let probe = Socket::new(Domain::for_address(address), Type::DGRAM, None);
    let connected = probe.and_then(|probe| probe.connect(&address.into()));
    !has_no_address_or_port(&connected)
}

/// Whether connect(2) gave EADDRNOTAVAIL: the kernel found no address or no port for the socket.
fn has_no_address_or_port<T>(result: &io::Result<T>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Refuses a connection whose two ends are the same socket.
///
/// If nothing listens on a local port of the ephemeral range, the kernel may choose that very port as the source. The
/// socket's SYN then meets the socket itself: a simultaneous open (RFC 9293, section 3.5, figure 7). The connection
/// would echo what is sent, and keep the server from binding its port. It is reset, so that no TIME_WAIT keeps the port
/// either.
fn reject_self_connection(socket: TcpStream, server: SocketAddr) -> io::Result<TcpStream> {
    let local = socket.local_addr()?;
    // Comparing the ports first saves a system call. The peer's address is read because the server's may be 0.0.0.0.
    // Reading it fails if the peer has reset the connection; the caller finds that out when it uses the socket.
    if local.port() == server.port() && socket.peer_addr().is_ok_and(|peer| peer.ip() == local.ip()) {
        reset(socket);
        let what = "connection refused: nothing listens on the port, and the socket connected to itself";
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, what));
    }
    Ok(socket)
}

/// For tests: no options but a long time limit.
#[cfg(test)]
pub(crate) const TEST_CONNECT: ConnectOptions = ConnectOptions {
    timeout: Duration::from_secs(20),
    socket: SocketOptions {
        keepalive: None,
        user_timeout: None,
    },
    source: None,
    proxy_protocol: None,
};
