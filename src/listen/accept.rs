//! Accepting clients.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::watch;
use crate::addr::PeerAddr;
use crate::capacity::{ConnectionLimits, Permit};
use crate::socket::SocketOptions;
use crate::tcp_info::TcpInfo;

/// How long accepting rests when the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long it rests after an error of one client. Should it be none of a client, and last (a policy of the system that
/// forbids to accept), trying on costs next to nothing.
const NOBODY_PAUSE: Duration = Duration::from_millis(1);

/// Clients accepted before the sessions already let in get their turn.
const ACCEPT_BATCH: u32 = 16;

/// Clients let in of those who join a queue after it was closed, while others before them are: hardly anybody can.
pub(super) const LATE_MAX: u32 = ACCEPT_BATCH;

/// Clients let in of a closed queue of which the system does not tell the length: `net.core.somaxconn`, by default.
const UNKNOWN_QUEUE_MAX: u32 = 4096;

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
pub(super) enum Tried {
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
    pub async fn accept(&mut self, places: &ConnectionLimits, mut told: impl FnMut(Pause)) -> Accepted {
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
        options.apply_anew(&SockRef::from(self.socket.get_ref()));
        let _ = rustix::net::listen(self.socket.get_ref(), i32::try_from(backlog).unwrap_or(i32::MAX));
    }

    /// From now on hardly anybody joins those who wait: the kernel lets somebody in only while there is nobody.
    pub fn close_queue(&mut self) {
        // Nothing is lost where it fails: those who come are turned away like the others.
        let _ = rustix::net::listen(self.socket.get_ref(), 0);
        self.left = self.queue_length().unwrap_or(UNKNOWN_QUEUE_MAX) + LATE_MAX;
    }

    /// The next of those who waited when the queue was closed, as soon as there is a place; `None` when nobody waits any
    /// more. Otherwise like [`Self::accept`].
    ///
    /// Of those who join them meanwhile a few: where places are scarce and clients many there would always be one.
    pub async fn accept_waiting(&mut self, places: &ConnectionLimits, mut told: impl FnMut(Pause)) -> Option<Accepted> {
        self.let_sessions_run().await;
        while self.left > 0 {
            let length = self.queue_length();
            if length == Some(0) {
                return None;
            }
            match self.try_accept(places, &mut told).await {
                Ok(Some(accepted)) => {
                    self.left -= 1;
                    return Some(accepted);
                }
                Err(_empty) if length.is_none() => return None,
                Ok(None) | Err(_) => {}
            }
        }
        None
    }

    /// Clients who wait to be let in, as far as is known. They are reset when this is dropped.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.queue_length().unwrap_or(0)
    }

    /// `None` where the system does not tell.
    fn queue_length(&self) -> Option<u32> {
        // Of a listening socket this figure is the length of its queue.
        TcpInfo::of(self.socket.get_ref().as_fd()).map(|info| info.unacknowledged)
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
    async fn try_accept(
        &self,
        places: &ConnectionLimits,
        told: &mut impl FnMut(Pause),
    ) -> io::Result<Option<Accepted>> {
        let permit = match places.try_acquire() {
            Some(permit) => permit,
            None => {
                told(Pause::Limit);
                places.acquire().await
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
pub(super) fn accept(listener: &OwnedFd) -> io::Result<Tried> {
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
pub(super) fn nobody(error: Errno) -> io::Result<Tried> {
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
