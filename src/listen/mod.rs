//! Listening sockets, and an accept that fails only where the socket was shut down.
//!
//! Every worker has its own socket for each TCP address (SO_REUSEPORT); the kernel distributes the clients. If the
//! system refuses SO_REUSEPORT, all workers share one. They also share a Unix socket, which cannot have
//! SO_REUSEPORT, and a socket that the service manager has passed: clients that wait in it survive a restart, and those
//! in a worker's own socket would not.

mod conflict;
mod passed;
mod accept_pause;
mod accept;

use std::io;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use crate::addr::{ListenAddr, UnixPath};
use crate::error::with_context;
use crate::optional::OptionalCall;
use crate::socket::SocketOptions;
use crate::unix_socket::{BoundUnix, SocketFile, connect_to_listener, in_use_by};
pub use accept::{Accepted, Listener, NotListening};
pub use accept_pause::AcceptPause;
pub use conflict::BindError;
pub use passed::PassedSockets;

static REUSE_ADDRESS: OptionalCall = OptionalCall::new(
    "setsockopt(SO_REUSEADDR)",
    "a restart may have to wait for old connections",
);
static REUSE_PORT: OptionalCall = OptionalCall::new(
    "setsockopt(SO_REUSEPORT)",
    "workers share one queue of clients, and listeners whose addresses overlap cannot be bound",
);

/// An address that is bound; only a socket that the service manager has passed listens already. This process accepts no
/// client before everything is bound.
#[derive(Debug)]
pub struct Bound {
    address: ListenAddr,
    socket: BoundSocket,
}

#[derive(Debug)]
enum BoundSocket {
    /// The first socket, and the options of the others.
    Tcp(Socket, SocketOptions),
    Unix(BoundUnix),
    Passed(Socket),
}

/// An address that is listened on.
#[derive(Debug)]
pub struct Listening {
    /// A socket for each worker.
    pub sockets: Vec<OwnedFd>,
    /// The file of a Unix socket. Dropped, and thereby removed, when no client may connect any more.
    pub file: Option<SocketFile>,
    /// Who owns the queue of clients.
    pub queue: QueueOwner,
}

/// The owner of the queue of clients at a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOwner {
    /// This process: clients that are left in the queue at the end are reset.
    Process,
    /// The service manager, which has also set the length of the queue. Clients that are left in it wait for the next
    /// process.
    ServiceManager,
}

impl Bound {
    /// Binds the address without SO_REUSEPORT. This fails if another process listens already, so that two processes
    /// cannot share the clients by mistake.
    ///
    /// # Errors
    /// The address and why it cannot be bound.
    pub fn new(address: ListenAddr, options: &SocketOptions) -> Result<Self, BindError> {
        Self::bind(address, options, false)
    }

    /// Binds an address that overlaps with one of this process (`0.0.0.0:80` and `10.0.0.1:80`). That needs
    /// SO_REUSEPORT.
    ///
    /// # Errors
    /// The address and why it cannot be bound.
    pub fn with_reuse_port(address: ListenAddr, options: &SocketOptions) -> Result<Self, BindError> {
        Self::bind(address, options, true)
    }

    fn bind(address: ListenAddr, options: &SocketOptions, reuse_port: bool) -> Result<Self, BindError> {
        let first = bind(address, options, reuse_port).map_err(|cause| BindError::new(address, cause))?;
        // Port 0 asks the kernel to choose one.
        let bound = first.local_addr().ok().and_then(|bound| bound.as_socket());
        Ok(Self {
            address: bound.map_or(address, |bound| address.with_port(bound.port())),
            socket: BoundSocket::Tcp(first, *options),
        })
    }

    /// Binds a Unix socket with these permissions. A file that an ended process has left there is replaced by
    /// [`Self::listen`].
    ///
    /// # Errors
    /// The path and why it cannot be bound; for example, a process listens there, or the file is not a socket.
    pub fn bind_unix(path: UnixPath, mode: u32) -> Result<Self, BindError> {
        let address = ListenAddr::from_unix(path);
        let bound = || {
            if let Some(connection) = connect_to_listener(path.as_path())? {
                return Err(in_use_by(&connection));
            }
            BoundUnix::new(path.as_path(), mode)
        };
        Ok(Self {
            address,
            socket: BoundSocket::Unix(bound().map_err(|cause| BindError::new(address, cause))?),
        })
    }

    /// Takes a socket that the service manager has passed.
    ///
    /// # Errors
    /// The address and the cause: the socket was shut down, or its descriptor cannot be copied.
    pub fn passed(address: ListenAddr, socket: &Socket, options: &SocketOptions) -> Result<Self, BindError> {
        let copy = match accept::is_shut_down(socket) {
            true => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "it was shut down by another program",
            )),
            false => socket.try_clone(),
        };
        let copy = copy.map_err(|cause| BindError::new(address, cause))?;
        if address.unix().is_none() {
            options.apply_anew(&SockRef::from(&copy));
        }
        Ok(Self {
            address,
            socket: BoundSocket::Passed(copy),
        })
    }

    /// The address that is bound, with the port that the kernel chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> ListenAddr {
        self.address
    }

    /// Sets SO_REUSEPORT. To be called before [`Self::listen`] where this process has begun to listen on an overlapping
    /// address since this one was bound.
    pub fn set_reuse_port(&self) {
        if let BoundSocket::Tcp(first, _) = &self.socket {
            REUSE_PORT.record_result(first.set_reuse_port(true)); // where it fails, listening fails too, and reports it
        }
    }

    /// Listens: from now on clients are queued. Each worker has one socket, or all share one where SO_REUSEPORT is
    /// refused, does not exist (Unix sockets), or would split the queue of the service manager.
    ///
    /// # Errors
    /// The address and why it cannot be listened on.
    pub fn listen(self, workers: usize, backlog: u32) -> Result<Listening, BindError> {
        let Self { address, socket } = self;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let listening = match socket {
            BoundSocket::Tcp(first, options) => listen_tcp(first, address, &options, workers, backlog),
            BoundSocket::Unix(bound) => bound.listen(backlog).and_then(|(socket, file)| {
                Ok(Listening {
                    sockets: shared_by(workers, vec![socket.into()])?,
                    file: Some(file),
                    queue: QueueOwner::Process,
                })
            }),
            BoundSocket::Passed(socket) => shared_by(workers, vec![socket.into()]).map(|sockets| Listening {
                sockets,
                file: None,
                queue: QueueOwner::ServiceManager,
            }),
        };
        listening.map_err(|cause| BindError::new(address, cause))
    }
}

/// Listens on the first socket, then sets SO_REUSEPORT, then adds the sockets of the other workers. Because of this
/// order, if two processes have bound the address, the second that listens fails. This does not hold for an address
/// that overlaps with another of this process: its first socket has SO_REUSEPORT already.
fn listen_tcp(
    first: Socket,
    address: ListenAddr,
    options: &SocketOptions,
    workers: usize,
    backlog: i32,
) -> io::Result<Listening> {
    first.listen(backlog).map_err(|error| refused("listen", error))?;
    let has_reuse_port = REUSE_PORT.record_result(first.set_reuse_port(true));
    let mut sockets = vec![OwnedFd::from(first)];
    while has_reuse_port && sockets.len() < workers {
        let next = bind(address, options, has_reuse_port)?;
        next.listen(backlog)?;
        sockets.push(next.into());
    }
    Ok(Listening {
        sockets: shared_by(workers, sockets)?,
        file: None,
        queue: QueueOwner::Process,
    })
}

/// As many sockets as there are workers: workers without a socket of their own share the first.
fn shared_by(workers: usize, mut sockets: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    while sockets.len() < workers {
        sockets.push(sockets[0].try_clone()?);
    }
    Ok(sockets)
}

/// Listens on an address with a single socket, for the admin port. To be called within a runtime.
///
/// # Errors
/// The address and why it cannot be listened on.
pub fn listen_alone(address: ListenAddr) -> Result<TcpListener, BindError> {
    const BACKLOG: i32 = 128;
    const OPTIONS: SocketOptions = SocketOptions {
        keepalive: None,
        user_timeout: None,
    };
    let listening = || {
        let reuse_port = false; // another process must not share the port
        let socket = bind(address, &OPTIONS, reuse_port)?;
        socket.listen(BACKLOG).map_err(|error| refused("listen", error))?;
        TcpListener::from_std(socket.into())
    };
    listening().map_err(|cause| BindError::new(address, cause))
}

fn bind(address: ListenAddr, options: &SocketOptions, reuse_port: bool) -> io::Result<Socket> {
    let address = address.socket().ok_or(io::ErrorKind::Unsupported)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(|error| refused("socket", error))?;
    // Without this, `[::]` would take IPv4 clients too, and conflict with `0.0.0.0`.
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket
            .set_only_v6(true)
            .map_err(|error| refused("setsockopt(IPV6_V6ONLY)", error))?;
    }
    REUSE_ADDRESS.record_result(socket.set_reuse_address(true));
    if reuse_port {
        REUSE_PORT.record_result(socket.set_reuse_port(true));
    }
    socket
        .set_nonblocking(true)
        .map_err(|error| refused("fcntl(F_SETFL)", error))?;
    // Sessions read the errors of their connections with this call. If it is refused, fail here, not in sessions.
    socket
        .take_error()
        .map_err(|error| refused("getsockopt(SO_ERROR)", error))?;
    options.apply(&SockRef::from(&socket)); // accepted sockets inherit these options
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Adds the name of the call to an error that does not depend on the address, such as a security policy's.
fn refused(call: &str, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL) => {
            with_context(error, format!("the system refuses {call}"))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests;
