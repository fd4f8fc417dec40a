//! Listening sockets, and an accept that cannot fail.
//!
//! Every worker has its own socket for every address (SO_REUSEPORT); the kernel distributes the clients.

mod conflict;
mod watch;
mod accept;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use crate::addr::ListenAddr;
use crate::error::with_context;
use crate::optional::OptionalCall;
use crate::socket::SocketOptions;
pub use accept::{AcceptPause, Accepted, Listener};
pub use conflict::BindError;

static REUSE_ADDRESS: OptionalCall = OptionalCall::new(
    "setsockopt(SO_REUSEADDR)",
    "a restart may have to wait for old connections",
);
static REUSE_PORT: OptionalCall = OptionalCall::new(
    "setsockopt(SO_REUSEPORT)",
    "workers share one queue of clients, and listeners whose addresses overlap cannot be bound",
);

/// An address that is bound but not listened on yet: no client is accepted before everything is bound.
#[derive(Debug)]
pub struct Bound {
    address: ListenAddr,
    first: Socket,
    options: SocketOptions,
}

impl Bound {
    /// Binds the address without SO_REUSEPORT: so this fails where another process listens already, and two processes
    /// cannot share the clients by mistake.
    ///
    /// # Errors
    /// The address and why it cannot be bound.
    pub fn new(address: ListenAddr, options: &SocketOptions) -> Result<Self, BindError> {
        Self::bind(address, options, false)
    }

    /// Binds an address that overlaps with one of this process (`0.0.0.0:80` and `10.0.0.1:80`), which needs
    /// SO_REUSEPORT.
    ///
    /// # Errors
    /// The address and why it cannot be bound.
    pub fn with_reuse_port(address: ListenAddr, options: &SocketOptions) -> Result<Self, BindError> {
        Self::bind(address, options, true)
    }

    fn bind(address: ListenAddr, options: &SocketOptions, is_shared: bool) -> Result<Self, BindError> {
        let first = bind(address.socket(), is_shared, options).map_err(|cause| BindError::new(address, cause))?;
        let real = first.local_addr().ok().and_then(|real| real.as_socket());
        Ok(Self {
            address: real.map_or(address, |real| address.with_port(real.port())),
            first,
            options: *options,
        })
    }

    /// The address that is bound, with the port that the kernel chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> ListenAddr {
        self.address
    }

    /// Sets SO_REUSEPORT. To be called before [`Self::listen`] where this process has begun to listen on an overlapping
    /// address since this one was bound.
    pub fn share(&self) {
        // Where it fails, listening fails too, and reports it.
        REUSE_PORT.try_result(self.first.set_reuse_port(true));
    }

    /// Listens: from now on clients are queued. One socket a worker, or one shared by all where SO_REUSEPORT is refused.
    ///
    /// The first socket listens before SO_REUSEPORT is set: where two processes have bound the address and neither
    /// listened yet, the second one fails here. Then the other sockets join it.
    ///
    /// # Errors
    /// The address and why it cannot be listened on.
    pub fn listen(self, workers: usize, backlog: u32) -> Result<Vec<OwnedFd>, BindError> {
        let Self {
            address,
            first,
            options,
        } = self;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let all = || -> io::Result<Vec<OwnedFd>> {
            first.listen(backlog).map_err(|error| refused("listen", error))?;
            let is_shared = REUSE_PORT.try_result(first.set_reuse_port(true));
            let mut sockets = vec![OwnedFd::from(first)];
            while sockets.len() < workers {
                sockets.push(if is_shared {
                    let next = bind(address.socket(), true, &options)?;
                    next.listen(backlog)?;
                    next.into()
                } else {
                    sockets[0].try_clone()?
                });
            }
            Ok(sockets)
        };
        all().map_err(|cause| BindError::new(address, cause))
    }
}

/// Listens on an address by one socket, for the admin port. To be called within a runtime.
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
        let socket = bind(address.socket(), false, &OPTIONS)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listening().map_err(|cause| BindError::new(address, cause))
}

fn bind(address: SocketAddr, reuse_port: bool, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(|error| refused("socket", error))?;
    // Only `[::]` would take IPv4 clients too, and conflict with `0.0.0.0`.
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket
            .set_only_v6(true)
            .map_err(|error| refused("setsockopt(IPV6_V6ONLY)", error))?;
    }
    REUSE_ADDRESS.try_result(socket.set_reuse_address(true));
    if reuse_port {
        REUSE_PORT.try_result(socket.set_reuse_port(true));
    }
    socket
        .set_nonblocking(true)
        .map_err(|error| refused("fcntl(F_SETFL)", error))?;
    // Connecting to servers needs this call: it is better to fail here than in every session.
    socket
        .take_error()
        .map_err(|error| refused("getsockopt(SO_ERROR)", error))?;
    options.apply(&SockRef::from(&socket)); // accepted sockets inherit all of it
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
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::net::{SocketFlags, acceptfrom_with};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::accept::{AcceptOutcome, LATE_MAX, accept, outcome_of};
    use super::*;
    use crate::capacity::{Capacity, ConnectionLimits};

    const OPTIONS: SocketOptions = SocketOptions {
        keepalive: None,
        user_timeout: None,
    };

    fn loopback() -> ListenAddr {
        ListenAddr::new("127.0.0.1:0".parse().unwrap())
    }

    fn limits(listener: Option<usize>, process: usize) -> ConnectionLimits {
        ConnectionLimits::new(listener, Capacity::new(Some(process)))
    }

    #[test]
    fn an_address_that_is_listened_on_is_not_bound_again() {
        let first = Bound::new(loopback(), &OPTIONS).unwrap();
        let address = first.address();
        let sockets = first.listen(2, 16).unwrap();
        assert_eq!(sockets.len(), 2);
        let error = Bound::new(address, &OPTIONS).unwrap_err();
        assert_eq!(error.cause.error.raw_os_error(), Some(libc::EADDRINUSE));
        assert!(
            crate::error::chain(&error).contains("another process listens there"),
            "{error}"
        );
    }

    #[test]
    fn of_two_processes_that_bound_an_address_only_one_listens() {
        let first = Bound::new(loopback(), &OPTIONS).unwrap();
        let second = Bound::new(first.address(), &OPTIONS).unwrap(); // nobody listens yet
        let _sockets = first.listen(2, 16).unwrap();
        let error = second.listen(2, 16).unwrap_err();
        assert_eq!(error.cause.error.raw_os_error(), Some(libc::EADDRINUSE));
    }

    #[test]
    fn the_kernel_distributes_clients_among_the_sockets() {
        let bound = Bound::new(loopback(), &OPTIONS).unwrap();
        let address = bound.address().socket();
        let sockets = bound.listen(2, 256).unwrap();
        let _clients: Vec<_> = (0..200)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        for socket in &sockets {
            let waiting = std::iter::from_fn(|| acceptfrom_with(socket, SocketFlags::CLOEXEC).ok()).count();
            assert!(waiting > 50, "{waiting} of 200 on one of two sockets");
        }
    }

    #[test]
    fn accepting_pauses_for_a_shortage_and_not_for_an_error_of_one_client() {
        let pause = |error| match outcome_of(error) {
            Ok(AcceptOutcome::Pause(reason)) => Some(reason),
            Ok(_) => None,
            Err(error) => unreachable!("{error}"),
        };
        for error in [Errno::MFILE, Errno::NFILE] {
            assert_eq!(pause(error), Some(AcceptPause::Descriptors), "{error}");
        }
        for error in [Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(pause(error), Some(AcceptPause::Memory), "{error}");
        }
        for error in [
            Errno::CONNABORTED,
            Errno::PERM,
            Errno::PROTO,
            Errno::INTR,
            Errno::NETDOWN,
            Errno::HOSTUNREACH,
        ] {
            assert_eq!(pause(error), None, "{error}");
        }
        assert_eq!(
            outcome_of(Errno::AGAIN).map(|_| ()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn a_persistent_accept_error_does_not_block_the_worker() {
        let (result_sender, result) = channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let accepting = async {
                let bound = bind("127.0.0.1:0".parse().unwrap(), false, &OPTIONS).unwrap(); // nobody listens: EINVAL
                let (mut listener, limits) = (Listener::new(bound.into()).unwrap(), limits(None, 1));
                timeout(Duration::from_millis(50), listener.accept(&limits, |_| {}))
                    .await
                    .is_err()
            };
            result_sender.send(runtime.unwrap().block_on(accepting))
        });
        assert_eq!(result.recv_timeout(Duration::from_secs(20)), Ok(true));
    }

    #[test]
    fn a_client_that_the_runtime_cannot_watch_pauses_accepting() {
        let bound = Bound::new(loopback(), &OPTIONS).unwrap();
        let address = bound.address().socket();
        let socket = bound.listen(1, 16).unwrap().remove(0);
        let _client = std::net::TcpStream::connect(address).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _within = handle.enter(); // a runtime that is gone registers no socket, like one whose epoll is full
        assert!(matches!(accept(&socket), Ok(AcceptOutcome::Pause(AcceptPause::Memory))));
    }

    #[tokio::test]
    async fn clients_beyond_the_limit_wait_until_a_session_ends() {
        let bound = Bound::new(loopback(), &OPTIONS).unwrap();
        let address = bound.address().socket();
        let socket = bound.listen(1, 16).unwrap().remove(0);
        let (mut listener, limits) = (Listener::new(socket).unwrap(), limits(Some(1), 9));
        let _clients = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let first = listener.accept(&limits, |_| unreachable!("there is a permit")).await;
        let mut pauses = Vec::new();
        let mut second = Box::pin(listener.accept(&limits, |pause| pauses.push(pause)));
        poll_fn(|cx| {
            assert!(second.as_mut().poll(cx).is_pending(), "no permit yet");
            std::task::Poll::Ready(())
        })
        .await;
        drop(first);
        drop(second.await);
        assert_eq!(pauses, [AcceptPause::Limit]);
    }

    #[tokio::test]
    async fn a_closed_queue_accepts_those_already_queued_and_few_later_ones() {
        let bound = Bound::new(loopback(), &OPTIONS).unwrap();
        let address = bound.address().socket();
        let socket = bound.listen(1, 16).unwrap().remove(0);
        let (mut listener, limits) = (Listener::new(socket).unwrap(), limits(None, 9));
        let mut clients = vec![TcpStream::connect(address).await.unwrap()];
        clients.push(TcpStream::connect(address).await.unwrap());
        listener.close_queue();
        assert!(listener.accept_waiting(&limits, |_| {}).await.is_some());
        let mut accepted = 1;
        while listener.accept_waiting(&limits, |_| {}).await.is_some() {
            accepted += 1;
            clients.push(TcpStream::connect(address).await.unwrap()); // the queue is empty
        }
        assert_eq!((accepted, listener.waiting()), (2 + LATE_MAX, 1));
    }
}
