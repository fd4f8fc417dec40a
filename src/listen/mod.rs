//! Listening sockets, and an accept that cannot fail.
//!
//! Every worker has a socket of its own for every address (SO_REUSEPORT); the kernel divides the clients.

mod accept;
mod conflict;
mod places;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use crate::addr::ListenAddr;
use crate::optional::OptionalCall;
use crate::socket::SocketOptions;
pub use accept::{Accepted, Listener, Pause};
pub use conflict::BindError;
pub use places::{Permit, Place, Places, Room};

static REUSE_ADDRESS: OptionalCall = OptionalCall::new(
    "setsockopt(SO_REUSEADDR)",
    "a restart may have to wait for old connections",
);
static REUSE_PORT: OptionalCall = OptionalCall::new(
    "setsockopt(SO_REUSEPORT)",
    "workers share one queue of clients, and listeners whose addresses overlap cannot be bound",
);

/// An address that is bound but not listened on yet: nobody is let in before everything is bound.
#[derive(Debug)]
pub struct Bound {
    address: ListenAddr,
    first: Socket,
    options: SocketOptions,
}

impl Bound {
    /// Binds the address, without SO_REUSEPORT: so it is not bound where somebody listens already, and two processes
    /// cannot share the clients by mistake.
    ///
    /// # Errors
    /// The address and why it cannot be bound.
    pub fn new(address: ListenAddr, options: &SocketOptions) -> Result<Self, BindError> {
        Self::bind(address, options, false)
    }

    /// Binds an address that overlaps with one that this very process holds (`0.0.0.0:80` and `10.0.0.1:80`), which is
    /// only possible by sharing.
    ///
    /// # Errors
    /// The address and why it cannot be bound.
    pub fn beside_our_own(address: ListenAddr, options: &SocketOptions) -> Result<Self, BindError> {
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

    /// The address really bound: the port is the kernel's choice where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> ListenAddr {
        self.address
    }

    /// To be called before it is listened on beside an address of this very process that overlaps with it, and was not
    /// listened on yet when this one was bound.
    pub fn share(&self) {
        // Where it fails so does listening, which says it.
        REUSE_PORT.try_result(self.first.set_reuse_port(true));
    }

    /// From now on clients are let in. One socket a worker, or one for all where SO_REUSEPORT is refused.
    ///
    /// The first listens while it is still alone: of two processes that have both bound the address, and neither of
    /// which listened yet, the second fails here. Then the others join it.
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

/// Listens on an address by one socket, for what is no traffic. To be called within a runtime.
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
    // Connecting to servers needs this one; better missed here than by every session.
    socket
        .take_error()
        .map_err(|error| refused("getsockopt(SO_ERROR)", error))?;
    options.apply(&SockRef::from(&socket)); // accepted sockets inherit all of it
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Names a necessary call that the system refuses whatever the address is. Other errors speak for themselves.
fn refused(call: &str, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL) => {
            io::Error::other(format!("the system refuses {call}: {error}"))
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

    use super::accept::{LATE_MAX, Tried, accept, nobody};
    use super::*;

    const OPTIONS: SocketOptions = SocketOptions {
        keepalive: None,
        user_timeout: None,
    };

    fn loopback() -> ListenAddr {
        ListenAddr::new("127.0.0.1:0".parse().unwrap())
    }

    fn places(listener: Option<usize>, process: usize) -> Places {
        Places::new(listener, Room::new(Some(process)))
    }

    #[test]
    fn an_address_that_is_listened_on_is_not_bound_again() {
        let first = Bound::new(loopback(), &OPTIONS).unwrap();
        let address = first.address();
        let sockets = first.listen(2, 16).unwrap();
        assert_eq!(sockets.len(), 2);
        let error = Bound::new(address, &OPTIONS).unwrap_err();
        assert_eq!(error.cause.raw_os_error(), Some(libc::EADDRINUSE));
        assert!(error.to_string().contains("another process listens there"), "{error}");
    }

    #[test]
    fn of_two_that_have_bound_an_address_one_may_listen() {
        let first = Bound::new(loopback(), &OPTIONS).unwrap();
        let second = Bound::new(first.address(), &OPTIONS).unwrap(); // nobody listens yet
        let _sockets = first.listen(2, 16).unwrap();
        let error = second.listen(2, 16).unwrap_err();
        assert_eq!(error.cause.raw_os_error(), Some(libc::EADDRINUSE));
    }

    #[test]
    fn the_kernel_divides_clients_among_the_sockets() {
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
    fn a_place_of_the_listener_goes_back_when_the_process_has_none() {
        let places = places(Some(2), 1);
        let held = places.try_take().unwrap();
        assert!(places.try_take().is_none());
        assert_eq!(places.taken(), 1);
        drop(held);
        assert_eq!(places.taken(), 0);
        assert!(places.try_take().is_some());
    }

    #[test]
    fn a_shortage_of_ours_makes_accepting_rest_and_what_a_client_did_does_not() {
        let pause = |error| match nobody(error) {
            Ok(Tried::Pause(reason)) => Some(reason),
            Ok(_) => None,
            Err(error) => unreachable!("{error}"),
        };
        for error in [Errno::MFILE, Errno::NFILE] {
            assert_eq!(pause(error), Some(Pause::Descriptors), "{error}");
        }
        for error in [Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(pause(error), Some(Pause::Memory), "{error}");
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
            nobody(Errno::AGAIN).map(|_| ()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn an_error_that_lasts_keeps_nobody_else_of_the_worker_waiting() {
        let (tell, told) = channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let accepting = async {
                let deaf = bind("127.0.0.1:0".parse().unwrap(), false, &OPTIONS).unwrap(); // nobody listens: EINVAL
                let (mut listener, places) = (Listener::new(deaf.into()).unwrap(), places(None, 1));
                timeout(Duration::from_millis(50), listener.accept(&places, |_| {}))
                    .await
                    .is_err()
            };
            tell.send(runtime.unwrap().block_on(accepting))
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(true));
    }

    #[test]
    fn a_client_that_the_runtime_cannot_watch_makes_accepting_rest() {
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
        let _within = handle.enter(); // a runtime that is gone takes no socket, as one whose epoll is full
        assert!(matches!(accept(&socket), Ok(Tried::Pause(Pause::Memory))));
    }

    #[tokio::test]
    async fn beyond_the_limit_clients_wait_until_one_leaves() {
        let bound = Bound::new(loopback(), &OPTIONS).unwrap();
        let address = bound.address().socket();
        let socket = bound.listen(1, 16).unwrap().remove(0);
        let (mut listener, places) = (Listener::new(socket).unwrap(), places(Some(1), 9));
        let _clients = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let first = listener.accept(&places, |_| unreachable!("there is a place")).await;
        let mut pauses = Vec::new();
        let mut second = Box::pin(listener.accept(&places, |pause| pauses.push(pause)));
        poll_fn(|cx| {
            assert!(second.as_mut().poll(cx).is_pending(), "no place yet");
            std::task::Poll::Ready(())
        })
        .await;
        drop(first);
        drop(second.await);
        assert_eq!(pauses, [Pause::Limit]);
    }

    #[tokio::test]
    async fn of_a_closed_queue_those_are_let_in_who_waited_and_not_all_who_come_after_them() {
        let bound = Bound::new(loopback(), &OPTIONS).unwrap();
        let address = bound.address().socket();
        let socket = bound.listen(1, 16).unwrap().remove(0);
        let (mut listener, places) = (Listener::new(socket).unwrap(), places(None, 9));
        let mut clients = vec![TcpStream::connect(address).await.unwrap()];
        clients.push(TcpStream::connect(address).await.unwrap());
        listener.close_queue();
        assert!(listener.accept_waiting(&places, |_| {}).await.is_some());
        let mut let_in = 1;
        while listener.accept_waiting(&places, |_| {}).await.is_some() {
            let_in += 1;
            clients.push(TcpStream::connect(address).await.unwrap()); // the queue is empty
        }
        assert_eq!((let_in, listener.waiting()), (2 + LATE_MAX, 1));
    }
}
