//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep};

use super::QueueOwner;
use super::accept_pause::AcceptPause;
use crate::addr::PeerAddr;
use crate::capacity::{ConnectionLimits, Permit};
use crate::readiness::watch;
use crate::socket::{SocketOptions, stream_of};
use crate::tcp_info::TcpInfo;
use crate::unix_socket::peer_of;

/// The pause after an accept that failed for want of a descriptor or of memory.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// The pause after an accept that failed for another reason. It is short, because the error may concern only one
/// client. The pause doubles with each further failure in a row.
const FAILURE_PAUSE_MIN: Duration = Duration::from_millis(1);

/// The longest pause after a failure. Long enough that a persistent failure (a security policy that forbids accept)
/// costs little CPU time; short, because accepting the next client may succeed.
const FAILURE_PAUSE_MAX: Duration = Duration::from_millis(100);

/// How often a socket whose clients wait for a permit is checked: it may have been shut down.
const SHUT_DOWN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The most clients accepted in a row before sessions that were accepted earlier get to run.
const ACCEPT_BATCH: u32 = 16;

/// How many more clients may be accepted than a queue had, or is assumed to have had, when it was closed. Any small
/// number would do: the kernel lets a client join a closed queue only while it is empty.
pub(super) const LATE_MAX: u32 = ACCEPT_BATCH;

/// The assumed length of a closed queue where the system does not report it: the default of `net.core.somaxconn`.
const UNKNOWN_QUEUE_MAX: u32 = 4096;

/// A client that was just accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket.
    pub socket: TcpStream,
    /// Its address.
    pub peer: PeerAddr,
    /// When it was accepted.
    pub at: Instant,
    /// Its permit, to be held until the session is over.
    pub permit: Permit,
}

/// A worker's listening socket for one address, or its copy of a socket that all workers share (see [`super`]).
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    queue: QueueOwner,
    /// Whether TCP_INFO is asked for the length of the queue: not for a Unix socket.
    has_length: bool,
    /// Clients that are in the queue as far as is known.
    queued: u32,
    /// Whether the queue may have more clients than `queued`, because its length was not known at the last look.
    may_have_more: bool,
    /// The last pause after a failure of accept; zero: accept has succeeded since, or never failed.
    failure_pause: Duration,
    /// Calls of [`Self::accept`] and [`Self::accept_waiting`] since one of them last yielded.
    batch: u32,
    /// How many more clients may be accepted, once the queue is closed.
    remaining: u32,
}

/// A socket was shut down from outside (`ss -K`, shutdown(2)) and accepts no more clients. It must not listen again:
/// the runtime would report it as readable for ever, and the clients that it accepts could inherit the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotListening;

/// The result of one call of accept.
pub(super) enum AcceptOutcome {
    Client(TcpStream, PeerAddr),
    Pause(AcceptPause),
    Failed(io::Error),
}

/// The result of an attempt to get a permit and to accept a client.
enum AcceptAttempt {
    Accepted(Accepted),
    /// Accept failed, and the pause after that is over.
    Paused,
    /// The queue is empty.
    NoClient,
    NotListening,
}

impl Listener {
    /// Registers a socket of [`Bound::listen`](super::Bound::listen) with the calling thread's runtime.
    ///
    /// # Errors
    /// Those of registering it with the runtime.
    pub fn new(socket: OwnedFd, queue: QueueOwner) -> io::Result<Self> {
        let address = SockRef::from(&socket).local_addr();
        Ok(Self {
            has_length: !address.is_ok_and(|address| address.is_unix()),
            socket: watch(socket)?,
            queue,
            queued: 0,
            may_have_more: false,
            failure_pause: Duration::ZERO,
            batch: 0,
            remaining: 0,
        })
    }

    /// The next client, with a permit of `limits`. Before a pause whose reason is an [`AcceptPause`], calls `on_pause`.
    ///
    /// A permit is taken only when a client waits: an idle worker must not keep permits from the others.
    /// Cancel safe: a permit that no client has got yet is returned.
    ///
    /// # Errors
    /// The socket was shut down. It is to be dropped.
    pub async fn accept(
        &mut self,
        limits: &ConnectionLimits,
        mut on_pause: impl FnMut(AcceptPause),
    ) -> Result<Accepted, NotListening> {
        self.yield_after_batch().await;
        loop {
            self.wait_for_clients().await?;
            match self.try_accept(limits, &mut on_pause).await {
                AcceptAttempt::Accepted(accepted) => {
                    self.queued -= 1;
                    return Ok(accepted);
                }
                AcceptAttempt::Paused => {}
                // Usually, another process or worker with this socket was faster.
                AcceptAttempt::NoClient => (self.queued, self.may_have_more) = (0, false),
                AcceptAttempt::NotListening => return Err(NotListening),
            }
        }
    }

    /// Waits until the queue has clients. Sets `queued` to their number, or to 1 if the number is unknown. So usually
    /// accept finds an empty queue only if another process or worker with this socket was faster. Such an accept costs
    /// several times as much as reading the length: the kernel makes a socket and a file before it looks for a client.
    async fn wait_for_clients(&mut self) -> Result<(), NotListening> {
        while self.queued == 0 {
            if !self.may_have_more {
                self.wait_for_readiness().await?;
            }
            let length = self.queue_length();
            (self.queued, self.may_have_more) = (length.unwrap_or(1), length.is_none());
        }
        Ok(())
    }

    /// Waits until the system reports that the socket has become readable.
    async fn wait_for_readiness(&self) -> Result<(), NotListening> {
        // Without this call, a socket that is always ready and has no client would keep the worker from anything else.
        consume_budget().await;
        let Ok(mut ready) = self.socket.readable().await else {
            // The runtime is shutting down, and this task is about to be dropped.
            return std::future::pending().await;
        };
        if ready.ready().is_read_closed() {
            return Err(NotListening); // `clear_ready` does not clear it
        }
        // Clear before the caller counts: a client that joins after the count makes the socket ready again (EPOLLET).
        ready.clear_ready();
        Ok(())
    }

    /// Changes the options of a TCP socket, and the backlog if this process owns the queue. Clients that join the queue
    /// from now on inherit the options. A socket that was shut down stays as it is.
    pub fn adjust(&self, options: &SocketOptions, backlog: u32) {
        if self.is_shut_down() {
            return; // `accept` reports it
        }
        let socket = SockRef::from(self.socket.get_ref());
        if socket.local_addr().is_ok_and(|address| !address.is_unix()) {
            options.apply_anew(&socket);
        }
        if self.queue == QueueOwner::Process {
            let _ = rustix::net::listen(self.socket.get_ref(), i32::try_from(backlog).unwrap_or(i32::MAX));
        }
    }

    /// Closes the queue, as far as the kernel can: with a backlog of 0 a client can join only an empty queue. A queue
    /// of the service manager stays open: its clients wait for the next process.
    pub fn close_queue(&mut self) {
        if self.queue == QueueOwner::ServiceManager || self.is_shut_down() {
            return; // `remaining` stays 0, so that `accept_waiting` accepts nobody
        }
        // If this fails, more clients join. They are reset when the socket closes, like all that come too late.
        let _ = rustix::net::listen(self.socket.get_ref(), 0);
        self.remaining = self.queue_length().unwrap_or(UNKNOWN_QUEUE_MAX) + LATE_MAX;
    }

    /// The next of the clients that were already queued when the queue was closed, as soon as there is a permit.
    /// `None`: no such client is left, or the socket was shut down. Otherwise like [`Self::accept`].
    ///
    /// Of the clients that join later, a limited number is accepted and the others are reset when the socket closes:
    /// accepting all of them could go on for ever under load.
    pub async fn accept_waiting(
        &mut self,
        limits: &ConnectionLimits,
        mut on_pause: impl FnMut(AcceptPause),
    ) -> Option<Accepted> {
        self.yield_after_batch().await;
        while self.remaining > 0 {
            consume_budget().await;
            let length = self.queue_length();
            if length == Some(0) {
                return None;
            }
            match self.try_accept(limits, &mut on_pause).await {
                AcceptAttempt::Accepted(accepted) => {
                    self.remaining -= 1;
                    return Some(accepted);
                }
                AcceptAttempt::NoClient if length.is_none() => return None, // poll(2) may report another event for ever
                AcceptAttempt::NotListening => return None,
                AcceptAttempt::Paused | AcceptAttempt::NoClient => {}
            }
        }
        None
    }

    /// Clients in the queue that are reset when the last copy of the socket is dropped; 1 if there are some and the
    /// system does not report how many.
    #[must_use]
    pub fn clients_to_reset(&self) -> u32 {
        match self.queue {
            QueueOwner::Process if !self.is_shut_down() => self.queue_length().unwrap_or(1),
            _ => 0,
        }
    }

    /// The length of the queue; `None`: not known. Then the queue has a client, unless poll(2) has reported another
    /// event or has failed.
    fn queue_length(&self) -> Option<u32> {
        // `unacknowledged` of a listening TCP socket is the length of its queue. gVisor always reports a zero.
        let info = self.has_length.then(|| TcpInfo::read(self.socket.get_ref().as_fd()));
        let length = info.flatten().map_or(0, |info| info.unacknowledged);
        (length > 0 || !self.may_have_client()).then_some(length)
    }

    /// Whether poll(2) reports a client in the queue or another event; true also if poll(2) fails.
    fn may_have_client(&self) -> bool {
        events_now(self.socket.get_ref(), PollFlags::IN).is_none_or(|events| !events.is_empty())
    }

    /// Waits until the socket was shut down, which is noticed within [`SHUT_DOWN_CHECK_INTERVAL`]. It cannot wait for
    /// readiness instead: waiting clients make the socket ready, too.
    async fn until_shut_down(&self) {
        while !self.is_shut_down() {
            sleep(SHUT_DOWN_CHECK_INTERVAL).await;
        }
    }

    /// See [`is_shut_down`].
    fn is_shut_down(&self) -> bool {
        is_shut_down(self.socket.get_ref())
    }

    /// Yields after each batch of clients, so that sessions accepted earlier get to run.
    async fn yield_after_batch(&mut self) {
        self.batch += 1;
        if self.batch >= ACCEPT_BATCH {
            self.batch = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Accepts once, as soon as there is a permit.
    async fn try_accept(&mut self, limits: &ConnectionLimits, on_pause: &mut impl FnMut(AcceptPause)) -> AcceptAttempt {
        let permit = match limits.try_acquire() {
            Some(permit) => permit,
            None if !self.may_have_client() => return AcceptAttempt::NoClient,
            None if self.is_shut_down() => return AcceptAttempt::NotListening,
            None => {
                on_pause(AcceptPause::Limit);
                tokio::select! {
                    biased;
                    permit = limits.acquire() => permit,
                    () = self.until_shut_down() => return AcceptAttempt::NotListening,
                }
            }
        };
        match accept(self.socket.get_ref()) {
            Ok(AcceptOutcome::Client(socket, peer)) => {
                self.failure_pause = Duration::ZERO;
                return AcceptAttempt::Accepted(Accepted {
                    socket,
                    peer,
                    at: Instant::now(),
                    permit,
                });
            }
            Ok(AcceptOutcome::Pause(reason)) => {
                drop(permit);
                on_pause(reason);
                sleep(SHORTAGE_PAUSE).await;
            }
            Ok(AcceptOutcome::Failed(_)) if self.is_shut_down() => return AcceptAttempt::NotListening,
            Ok(AcceptOutcome::Failed(error)) => {
                drop(permit);
                self.pause_after_failure(&error).await;
            }
            Err(_would_block) => return AcceptAttempt::NoClient,
        }
        AcceptAttempt::Paused
    }

    /// Logs the failure if it is the first in a row. Then pauses, each time twice as long, up to a maximum.
    async fn pause_after_failure(&mut self, error: &io::Error) {
        if self.failure_pause.is_zero() {
            let address = SockRef::from(self.socket.get_ref()).local_addr();
            let address = address.ok().and_then(|address| address.as_socket());
            let address = address.map_or("a Unix socket".to_owned(), |address| address.to_string());
            tracing::warn!(address, %error, "cannot accept clients, trying again");
        }
        self.failure_pause = (self.failure_pause * 2).clamp(FAILURE_PAUSE_MIN, FAILURE_PAUSE_MAX);
        sleep(self.failure_pause).await;
    }
}

/// Whether a listening socket was shut down. A socket that listens never has the events HUP and RDHUP.
pub(super) fn is_shut_down(socket: &impl AsFd) -> bool {
    let events = events_now(socket, PollFlags::RDHUP);
    events.is_some_and(|events| events.intersects(PollFlags::HUP | PollFlags::RDHUP))
}

/// Which of `events`, and of those that poll(2) reports unasked, a socket has now. `None`: poll(2) fails.
fn events_now(socket: &impl AsFd, events: PollFlags) -> Option<PollFlags> {
    let now = Timespec::default();
    let mut socket = [PollFd::new(socket, events)];
    poll(&mut socket, Some(&now)).ok()?;
    Some(socket[0].revents())
}

/// Accepts once. EAGAIN is the only error.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<AcceptOutcome> {
    let (socket, peer) = match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok((socket, peer)) => (socket, peer),
        Err(error) => return outcome_of(error),
    };
    Ok(match (peer_of_accepted(&socket, peer), stream_of(socket)) {
        (Ok(peer), Ok(socket)) => AcceptOutcome::Client(socket, peer),
        (Err(error), _) => AcceptOutcome::Failed(error),
        // epoll is full (ENOMEM, ENOSPC). This client is lost. The pause saves the next clients in the queue.
        (Ok(_), Err(_)) => AcceptOutcome::Pause(AcceptPause::Memory),
    })
}

/// Who is at the other end of an accepted socket. On a Unix socket that is a process (see [`peer_of`]): the address of
/// nearly every client is empty.
fn peer_of_accepted(socket: &OwnedFd, address: Option<SocketAddrAny>) -> io::Result<PeerAddr> {
    let address = address.ok_or(Errno::AFNOSUPPORT)?;
    if address.address_family() == AddressFamily::UNIX {
        return peer_of(socket).map(PeerAddr::from_unix);
    }
    Ok(SocketAddr::try_from(address).map(PeerAddr::new)?)
}

/// The outcome of an error of accept.
pub(super) fn outcome_of(error: Errno) -> io::Result<AcceptOutcome> {
    match error {
        Errno::AGAIN => Err(error.into()),
        Errno::MFILE | Errno::NFILE => Ok(AcceptOutcome::Pause(AcceptPause::Descriptors)),
        Errno::NOBUFS | Errno::NOMEM => Ok(AcceptOutcome::Pause(AcceptPause::Memory)),
        // Some of these errors concern a client that has left or whose network failed ("Error handling" in accept(2)).
        _ => Ok(AcceptOutcome::Failed(error.into())),
    }
}
