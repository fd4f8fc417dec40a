//! Listening sockets, and an accept that cannot fail.
//!
//! Every worker has a socket of its own for every address (SO_REUSEPORT); the kernel divides the clients.

mod conflict;
mod places;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::addr::{ListenAddr, PeerAddr};
use crate::socket::SocketOptions;
use crate::tcp_info::TcpInfo;
pub use conflict::BindError;
pub use places::{Permit, Place, Places, Room};

/// How long accepting rests when the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long it rests after an error of one client. Should it be none of a client, and last (a policy of the system that
/// forbids to accept), trying on costs next to nothing.
const NOBODY_PAUSE: Duration = Duration::from_millis(1);

/// Clients accepted before the sessions already let in get their turn.
const ACCEPT_BATCH: u32 = 16;

/// Clients let in of those who join a queue after it was closed, while others before them are: hardly anybody can.
const LATE_MAX: u32 = ACCEPT_BATCH;

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
            address: real.map_or(address, ListenAddr::new),
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
        let _ = self.first.set_reuse_port(true);
    }

    /// From now on clients are let in. One socket a worker.
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
            first.listen(backlog)?;
            first.set_reuse_port(true)?;
            let mut sockets = vec![OwnedFd::from(first)];
            while sockets.len() < workers {
                let next = bind(address.socket(), true, &options)?;
                next.listen(backlog)?;
                sockets.push(next.into());
            }
            Ok(sockets)
        };
        all().map_err(|cause| BindError::new(address, cause))
    }
}

fn bind(address: SocketAddr, reuse_port: bool, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?; // old connections in TIME_WAIT do not hinder a restart
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    options.apply(&SockRef::from(&socket))?; // accepted sockets inherit all of it
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Options of a socket that is not for the clients of listeners: none.
const PLAIN: SocketOptions = SocketOptions {
    keepalive: None,
    user_timeout: None,
};

/// A socket of its own for one address, listened on: not for the clients of listeners.
///
/// # Errors
/// The address and why it cannot be bound.
pub fn alone(address: ListenAddr) -> Result<std::net::TcpListener, BindError> {
    let listen = || {
        let socket = bind(address.socket(), false, &PLAIN)?;
        socket.listen(128)?; // as many as the standard library lets wait
        Ok(socket.into())
    };
    listen().map_err(|cause| BindError::new(address, cause))
}

/// Why accepting rests although a client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// No descriptor is left.
    Descriptors,
    /// No memory is left.
    Memory,
    /// `max_connections` are there.
    Limit,
}

impl Pause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Descriptors, Self::Memory, Self::Limit];

    /// The word that metrics and log use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Limit => "limit",
        }
    }
}

/// A client just let in.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket.
    pub socket: TcpStream,
    /// Its address.
    pub peer: PeerAddr,
    /// When.
    pub at: Instant,
    /// Its place.
    pub permit: Permit,
}

/// One worker's socket for one address.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    batch: u32,
    /// Clients to be let in at most, now that the queue is closed.
    left: u32,
}

/// What one try to accept came to.
enum Tried {
    Client(TcpStream, PeerAddr),
    Nobody,
    Pause(Pause),
}

impl Listener {
    /// Listens on a socket of [`Bound::listen`], in the calling thread's runtime.
    ///
    /// # Errors
    /// Those of registering it with the runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: watch::watch(socket)?,
            batch: 0,
            left: 0,
        })
    }

    /// The next client, on one of these places. `told` hears when accepting must rest, and why.
    ///
    /// A place is taken only when a client is there: a worker that merely waits must not keep one from the others.
    /// Cancel safe: a place not yet given to a client goes back.
    pub async fn accept(&mut self, places: &Places, mut told: impl FnMut(Pause)) -> Accepted {
        self.let_sessions_run().await;
        loop {
            let Ok(mut ready) = self.socket.readable().await else {
                // The runtime is going down; whoever waits for a client is about to be dropped.
                return std::future::pending().await;
            };
            match self.try_accept(places, &mut told).await {
                Ok(Some(accepted)) => return accepted,
                Ok(None) => {}
                Err(_nobody) => ready.clear_ready(),
            }
        }
    }

    /// Gives it other options; clients who come from now on have them.
    pub fn adjust(&self, options: &SocketOptions, backlog: u32) {
        // Its options were taken once, so were others of the kind.
        let _ = options.apply_anew(&SockRef::from(self.socket.get_ref()));
        let _ = rustix::net::listen(self.socket.get_ref(), i32::try_from(backlog).unwrap_or(i32::MAX));
    }

    /// From now on hardly anybody joins those who wait: the kernel lets somebody in only while there is nobody.
    pub fn close_queue(&mut self) {
        // Nothing is lost where it fails: those who come are turned away like the others.
        let _ = rustix::net::listen(self.socket.get_ref(), 0);
        self.left = self.waiting() + LATE_MAX;
    }

    /// The next of those who waited when the queue was closed, as soon as there is a place; `None` when nobody waits any
    /// more. Otherwise like [`Self::accept`].
    ///
    /// Of those who join them meanwhile a few: where places are scarce and clients many there would always be one.
    pub async fn accept_waiting(&mut self, places: &Places, mut told: impl FnMut(Pause)) -> Option<Accepted> {
        self.let_sessions_run().await;
        while self.left > 0 && self.waiting() > 0 {
            if let Ok(Some(accepted)) = self.try_accept(places, &mut told).await {
                self.left -= 1;
                return Some(accepted);
            }
        }
        None
    }

    /// Clients who wait to be let in. They are reset when this is dropped.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        // Of a listening socket this figure is the length of its queue.
        TcpInfo::of(self.socket.get_ref().as_fd()).map_or(0, |info| info.unacknowledged)
    }

    /// After a batch of clients the sessions already let in get their turn.
    async fn let_sessions_run(&mut self) {
        self.batch += 1;
        if self.batch >= ACCEPT_BATCH {
            self.batch = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Accepts once, as soon as there is a place: a client, or not this one. EAGAIN is the only error.
    async fn try_accept(&self, places: &Places, told: &mut impl FnMut(Pause)) -> io::Result<Option<Accepted>> {
        let permit = match places.try_take() {
            Some(permit) => permit,
            None => {
                told(Pause::Limit);
                places.take().await
            }
        };
        match accept(self.socket.get_ref())? {
            Tried::Client(socket, peer) => Ok(Some(Accepted {
                socket,
                peer,
                at: Instant::now(),
                permit,
            })),
            Tried::Nobody => {
                drop(permit);
                sleep(NOBODY_PAUSE).await;
                Ok(None)
            }
            Tried::Pause(reason) => {
                drop(permit);
                told(reason);
                sleep(ACCEPT_PAUSE).await;
                Ok(None)
            }
        }
    }
}

/// Accepts once. What the peer did wrong (it left first, its network failed: see "Error handling" in accept(2)) is
/// nobody; EAGAIN is the only error.
fn accept(listener: &OwnedFd) -> io::Result<Tried> {
    let (socket, peer) = match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok((socket, Some(peer))) => (socket, peer),
        Ok((_, None)) => return Ok(Tried::Nobody),
        Err(error) => return nobody(error),
    };
    let Ok(peer) = SocketAddr::try_from(peer) else {
        return Ok(Tried::Nobody);
    };
    Ok(match TcpStream::from_std(socket.into()) {
        Ok(socket) => Tried::Client(socket, PeerAddr::new(peer)),
        // epoll has no room (ENOMEM, ENOSPC). This client is lost; those behind it shall wait, not follow.
        Err(_) => Tried::Pause(Pause::Memory),
    })
}

/// Why accepting gave nobody.
fn nobody(error: Errno) -> io::Result<Tried> {
    match error {
        Errno::AGAIN => Err(error.into()),
        Errno::MFILE | Errno::NFILE => Ok(Tried::Pause(Pause::Descriptors)),
        Errno::NOBUFS | Errno::NOMEM => Ok(Tried::Pause(Pause::Memory)),
        _ => {
            tracing::debug!(%error, "cannot let a client in");
            Ok(Tried::Nobody)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc::channel;
    use std::thread;

    use tokio::time::timeout;

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
