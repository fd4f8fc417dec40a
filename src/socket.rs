//! A session's sockets: their options (keepalive, user timeout, no delay), connecting, faults, and closing by a reset.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, recv, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::addr::ListenAddr;
use crate::optional::OptionalCall;

static NO_DELAY: OptionalCall = OptionalCall::new("setsockopt(TCP_NODELAY)", "small writes may wait for an ACK");
static OUT_OF_BAND_INLINE: OptionalCall = OptionalCall::new("setsockopt(SO_OOBINLINE)", "urgent bytes are lost");
static KEEPALIVE: OptionalCall = OptionalCall::new(
    "setsockopt(SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL or TCP_KEEPCNT)",
    "dead peers of idle sessions are found later or never",
);
static USER_TIMEOUT: OptionalCall = OptionalCall::new("setsockopt(TCP_USER_TIMEOUT)", "`user_timeout` has no effect");
static LINGER: OptionalCall =
    OptionalCall::new("setsockopt(SO_LINGER)", "a cut session may look complete to its peers");
static QUICK_ACK: OptionalCall = OptionalCall::new("setsockopt(TCP_QUICKACK)", "each connect takes one more packet");

/// TCP keepalive: how a dead peer of an idle session is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds, at least one.
    pub idle: Duration,
    /// The time between probes; whole seconds, at least one.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub probes: u32,
}

impl Keepalive {
    /// Turns keepalive on, or changes its times. `idle` counts from the last segment that the peer has sent.
    ///
    /// Each of the calls is [optional](OptionalCall).
    pub fn apply(&self, socket: &SockRef<'_>) {
        KEEPALIVE.record_result(socket.set_keepalive(true));
        KEEPALIVE.record_result(sockopt::set_tcp_keepidle(&**socket, self.idle));
        KEEPALIVE.record_result(sockopt::set_tcp_keepintvl(&**socket, self.interval));
        KEEPALIVE.record_result(sockopt::set_tcp_keepcnt(&**socket, self.probes));
    }
}

/// Options of a session's sockets. An accepted socket inherits them from its listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// `None`: off.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT (RFC 5482). It also ends a connection whose peer is alive but does not read. `None`: off.
    pub user_timeout: Option<Duration>,
}

impl SocketOptions {
    /// Sets the options on a new socket, and two that every socket of ours has: TCP_NODELAY, because bytes are sent on
    /// as soon as they are read, and SO_OOBINLINE, because an urgent byte belongs to the stream (RFC 6093, section 6).
    ///
    /// Each of them is [optional](OptionalCall).
    pub fn apply(&self, socket: &SockRef<'_>) {
        NO_DELAY.record_result(socket.set_tcp_nodelay(true));
        OUT_OF_BAND_INLINE.record_result(socket.set_out_of_band_inline(true));
        if let Some(keepalive) = &self.keepalive {
            keepalive.apply(socket);
        }
        if self.user_timeout.is_some() {
            USER_TIMEOUT.record_result(socket.set_tcp_user_timeout(self.user_timeout));
        }
    }

    /// Like [`Self::apply`], for a socket that had other options before: also turns off what is `None`.
    pub fn apply_anew(&self, socket: &SockRef<'_>) {
        if self.keepalive.is_none() {
            KEEPALIVE.record_result(socket.set_keepalive(false));
        }
        if self.user_timeout.is_none() {
            USER_TIMEOUT.record_result(socket.set_tcp_user_timeout(None));
        }
        self.apply(socket);
    }
}

/// Registers a stream socket, TCP or Unix, connected or connecting, with the calling thread's runtime.
///
/// A Unix socket gets the type of a TCP socket, so that the same code serves both, at no cost for TCP.
/// Invariant: only those calls of this type are used that all stream sockets have, with the same meaning: readiness,
/// recv, send, splice, shutdown, and the options of `SOL_SOCKET` (SO_LINGER has no effect on a Unix socket). Calls that
/// only TCP has fail on a Unix socket: TCP options are set only where the address is one of TCP, except by
/// [`ack_at_once`], TCP_INFO is optional, and the address of the socket is read by [`local_address`].
///
/// # Errors
/// Those of epoll.
pub fn stream_of(socket: OwnedFd) -> io::Result<TcpStream> {
    TcpStream::from_std(socket.into())
}

/// The address to which the peer of a socket connected. For a Unix socket the caller passes it as `on_unix`: the kernel
/// knows only the first name of the listening socket's file, which is renamed after the bind.
///
/// # Errors
/// Those of getsockname; [`io::ErrorKind::Unsupported`] for a Unix socket without `on_unix` and for other families.
pub fn local_address(socket: &TcpStream, on_unix: Option<ListenAddr>) -> io::Result<ListenAddr> {
    let address = SockRef::from(socket).local_addr()?;
    let known = match address.as_socket() {
        Some(address) => Some(ListenAddr::new(address)),
        None => on_unix.filter(|_| address.is_unix()),
    };
    known.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// A socket of the address's family, to be connected.
///
/// # Errors
/// Those of `socket`.
pub fn tcp_socket_for(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))
}

/// Begins to connect a socket that does not block. See [`until_connected`].
///
/// # Errors
/// Those of `connect` that it returns at once (connect(2)), and of epoll.
pub fn begin_connect(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => stream_of(socket.into()),
    }
}

/// Waits until a socket is connected.
///
/// Like [`TcpStream::connect`], but reads SO_ERROR only if epoll reports an error, which saves a system call.
///
/// # Errors
/// Those of `connect` that it returns later (connect(2)).
pub async fn until_connected(socket: &TcpStream) -> io::Result<()> {
    let ready = socket.ready(Interest::WRITABLE | Interest::ERROR).await?;
    if ready.is_error() {
        socket.take_error()?.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// Closes a socket by a reset: what is queued is dropped, and the peer cannot mistake the end for a complete answer.
#[expect(clippy::needless_pass_by_value, reason = "it closes what it is given")]
pub fn reset(socket: TcpStream) {
    reset_when_closed(&socket);
}

/// Makes the socket end by a reset when it is closed.
pub fn reset_when_closed(socket: &impl AsFd) {
    LINGER.record_result(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
}

/// Undoes [`reset_when_closed`].
pub fn close_cleanly_again(socket: &impl AsFd) {
    LINGER.record_result(SockRef::from(socket).set_linger(None));
}

/// Lets the kernel delay ACKs, to send them with bytes or with the end of the stream (tcp(7), TCP_QUICKACK).
pub fn delay_acks(socket: &impl AsFd) {
    QUICK_ACK.record_result(sockopt::set_tcp_quickack(socket, false));
}

/// Ends what [`delay_acks`] began. An ACK that is due is sent. Does nothing to a Unix socket.
pub fn ack_at_once(socket: &impl AsFd) {
    let _ = sockopt::set_tcp_quickack(socket, true); // fails on a Unix socket, and where `delay_acks` fails, too
}

/// Whether the peer has ended its stream or the connection is broken, and all that came before was read.
#[must_use]
pub fn has_ended(socket: &TcpStream) -> bool {
    match recv(socket, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((bytes, _)) => bytes == 0,
        Err(error) => error != Errno::AGAIN,
    }
}

/// Whether the peer has sent bytes that nobody has read.
#[must_use]
pub fn has_unread(socket: &TcpStream) -> bool {
    let unread = recv(socket, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(unread, Ok((1.., _)))
}

/// Why a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its peer reset it.
    Reset,
    /// Its peer no longer answers: keepalive or retransmission gave up.
    Lost,
    /// Its peer closed the socket without ending the TLS stream on it (RFC 8446, section 6.1): something may be
    /// missing.
    Truncated,
    /// What its peer sent is not valid TLS, or is a fatal alert.
    Tls,
}

impl Fault {
    /// Classifies an error of reading or writing.
    #[must_use]
    pub fn classify(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Self::Reset,
            // A reset after the end of the peer's stream, or one that was reported before; or a Unix peer has closed.
            io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => Self::Reset,
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::InvalidData => Self::Tls,
            _ => Self::Lost, // a timeout; or the error of an ICMP message, which TCP returns after a timeout
        }
    }
}

/// Watches the peer of a socket without reading from it.
#[derive(Clone, Copy, Debug)]
pub struct PeerWatch<'a> {
    socket: &'a TcpStream,
}

impl<'a> PeerWatch<'a> {
    /// Watches the peer of this socket.
    #[must_use]
    pub const fn new(socket: &'a TcpStream) -> Self {
        Self { socket }
    }

    /// Waits until the peer has ended its stream, or has reset the connection.
    pub async fn stream_end(self) {
        read_closed(self.socket).await;
    }

    /// Waits until the peer of a Unix socket has closed its socket, which is more than the end of its stream. TCP does
    /// not tell one from the other, so this wait never ends for a TCP socket. The wait needs another file descriptor;
    /// if none is left, it never ends either.
    pub async fn unix_close(self) {
        if !sockopt::socket_domain(self.socket).is_ok_and(|domain| domain == AddressFamily::UNIX) {
            return pending().await;
        }
        // A copy has a readiness of its own. If the loop cleared the readiness of the socket itself, a writer would
        // miss that there is room.
        let Ok(copy) = self.socket.as_fd().try_clone_to_owned().and_then(stream_of) else {
            return pending().await;
        };
        // EPOLLHUP says that both directions have ended. We have not ended our direction, so the peer has closed the
        // socket.
        while let Ok(ready) = copy.ready(Interest::WRITABLE).await {
            if ready.is_write_closed() {
                return;
            }
            let _ = copy.try_io::<()>(Interest::WRITABLE, || Err(io::ErrorKind::WouldBlock.into()));
        }
    }
}

/// Waits until the peer's end of stream, or its reset, has arrived, even if bytes before it are still unread. Nothing
/// is read, and readers of the socket lose no readiness.
///
/// In tokio, [`Interest::PRIORITY`] is an interest in urgent bytes and in the end of the stream. No socket of ours asks
/// epoll for urgent bytes, so only the end remains.
pub async fn read_closed(socket: &TcpStream) {
    let _ = socket.ready(Interest::PRIORITY).await; // an error means that the runtime ends
}

/// Waits until a socket breaks, without reading from it. The end of the peer's stream is no fault.
///
/// Takes the error off the socket: later reads get what had arrived before, then the end of the stream.
pub async fn socket_fault(socket: &TcpStream) -> Fault {
    loop {
        if let Err(error) = socket.ready(Interest::ERROR).await {
            return Fault::classify(&error);
        }
        match socket.take_error() {
            Ok(Some(error)) | Err(error) => return Fault::classify(&error),
            // The error was taken before: clear the readiness, and wait for the next error.
            Ok(None) => {
                let _ = socket.try_io::<()>(Interest::ERROR, || Err(io::ErrorKind::WouldBlock.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    /// How many descriptors of this process are for this socket.
    fn descriptors_of(socket: &TcpStream) -> usize {
        let target = |number: &str| fs::read_link(format!("/proc/self/fd/{number}")).ok();
        let own = target(&socket.as_raw_fd().to_string()).unwrap();
        let all = fs::read_dir("/proc/self/fd").unwrap();
        all.filter(|entry| target(entry.as_ref().unwrap().file_name().to_str().unwrap()) == Some(own.clone()))
            .count()
    }

    #[tokio::test]
    async fn watching_the_end_and_the_close_of_a_unix_socket_takes_one_more_descriptor() {
        let (client, accepted) = UnixStream::pair().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let accepted = stream_of(accepted.into()).unwrap();
        let watch = PeerWatch::new(&accepted);
        let (mut end, mut close) = (pin!(watch.stream_end()), pin!(watch.unix_close()));
        assert!((&mut end).now_or_never().is_none());
        assert_eq!(
            descriptors_of(&accepted),
            1,
            "the wait for the end of the stream needs none"
        );
        assert!((&mut close).now_or_never().is_none());
        assert_eq!(descriptors_of(&accepted), 2);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        end.await;
        assert!(
            (&mut close).now_or_never().is_none(),
            "the end of the stream is no close"
        );
        drop(client);
        close.await;
    }
}
