//! Connects a session to a server. Each attempt has a time limit. After a failure the pool picks another server, for a
//! bounded number of attempts, or the client waits for the return of a server, for a bounded time.

mod late_port;
mod bind_source;
mod connect;
mod failure;
mod search;
mod queued;
mod tls;
mod held_lease;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::addr::ClientAddr;
use crate::pool::{CheckState, Member, NoLease, Pool, Server, ServerFailure, ServerId};
use crate::socket::{Fault, read_closed, socket_fault};
use crate::tls::{HandshakeError, TlsConnection};
pub use bind_source::{BindAddresses, BindSource, BindSourceError};
#[cfg(test)]
pub(crate) use connect::TEST_CONNECT;
pub use connect::{ConnectOptions, LastAck, connect, connect_for_check};
pub use failure::ConnectFailure;
pub use held_lease::{HOLD_TIME_MAX, HeldLease};
pub use queued::pause;
pub use search::{AfterAttempt, Search};
pub use tls::DialTls;
use tls::{TlsFailure, begin_tls};

/// How a session is connected to a server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialOptions {
    /// How a connection is opened.
    pub connect: ConnectOptions,
    /// Attempts after the first, each to another server.
    pub retries: u32,
}

/// The client that gets the connection.
#[derive(Clone, Copy, Debug)]
pub struct DialClient<'a> {
    /// Its socket, from which nothing is read.
    pub socket: &'a TcpStream,
    /// Where it connects from.
    pub address: ClientAddr,
    /// Whether it may end its stream and still wait for an answer. Otherwise the end of its stream means that it has
    /// left.
    pub may_half_close: bool,
    /// Whether only the server's first answer shows that it serves the session. If so, the caller records the success
    /// ([`Pool::record_connect`]) after that answer; otherwise, [`dial`] records it as soon as it has connected.
    pub awaits_answer: bool,
    /// When the kernel sends the last ACK of the TCP handshake with the server.
    pub last_ack: LastAck,
}

/// The progress of [`dial`], reported while it runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The client begins to wait in the pool's queue. [`NoLease::Full`] lists the reasons.
    Queued {
        /// Its position in the queue, from 1.
        position: usize,
        /// Whether the pool sleeps ([`Pool::needs_wake`]): then the client waits for a server to be started.
        is_asleep: bool,
    },
    /// The client no longer waits.
    Dequeued,
    /// An attempt to connect to this server begins.
    Trying(&'a Arc<Server>),
    /// The attempt has ended.
    Ended(Attempt<'a>),
}

/// An attempt that has ended.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The server.
    pub server: &'a Arc<Server>,
    /// How long the attempt took.
    pub took: Duration,
    /// `None`: it connected.
    pub failure: Option<ConnectFailure>,
    /// Why the TLS handshake failed, if that is the failure.
    pub tls_error: Option<&'a HandshakeError>,
    /// For how long the server is ejected, if the failure has ejected it.
    pub ejected_for: Option<Duration>,
    /// Whether success ended an ejection of the server.
    pub ended_ejection: bool,
}

/// Why [`dial`] returns no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// The pool has no server to try.
    NoServer,
    /// All servers have their maximum of sessions, and the pool has no queue.
    ServersFull,
    /// The queue is full.
    QueueFull,
    /// The client has waited for the longest permitted time.
    QueueTimeout,
    /// The client left while it waited: it ended its stream, or closed its Unix socket.
    ClientLeft,
    /// Every attempt failed.
    ConnectFailed,
    /// The client's connection failed meanwhile.
    ClientFault(Fault),
}

impl DialError {
    /// The error if the pool has no server, or none besides those that were tried.
    fn no_server_after(tried: &[ServerId]) -> Self {
        if tried.is_empty() {
            Self::NoServer
        } else {
            Self::ConnectFailed
        }
    }
}

/// For tests of the sizes of futures: the largest block of memory that glibc reuses whole (tcache). Larger blocks leave
/// holes in the heap.
#[cfg(test)]
pub(crate) const REUSED_BYTES_MAX: usize = 1032;

/// A server that was connected to.
pub struct Dialled {
    /// The connection.
    pub socket: TcpStream,
    /// The TLS on it, its handshake complete; `None`: none was asked for.
    pub tls: Option<Box<TlsConnection>>,
    /// The place on the server.
    pub lease: HeldLease,
}

/// Connects to a server that the pool picks, and completes a TLS handshake with it if `tls` asks for one. If the pick
/// finds no place ([`NoLease::Full`]), the client waits in the pool's queue. The caller keeps `search`: a session that
/// could not begin dials again with the same `search` ([`Search::record_failure`]). `report` is called at each step
/// ([`Progress`]). The end of an attempt is not reported if the attempt ends because the client's connection failed.
///
/// During an attempt, the client's end of stream is left to be read later; a reset by the client ends the dialling.
/// Dropping the future drops the lease. If the TLS handshake fails, the session keeps its place on the server until the
/// server has closed the connection ([`HeldLease`]). If the client's connection fails during a connect, the place is
/// kept for a while, because the kernel may have connected already.
///
/// # Errors
/// [`DialError`]: no server is left to try; all are full, and the client may not wait, or not any longer; the client
/// has left, or its connection failed; or 1 + [`DialOptions::retries`] attempts have failed.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub fn dial(
    pool: &Pool,
    options: &DialOptions,
    tls: Option<&DialTls<'_>>,
    client: DialClient<'_>,
    search: &mut Search,
    mut report: impl FnMut(Progress<'_>) + Send,
) -> impl Future<Output = Result<Dialled, DialError>> {
    async move {
        loop {
            let picked = match pool.pick(client.address, &search.tried, Instant::now()) {
                Ok(lease) => lease,
                Err(NoLease::NoServer) => return Err(DialError::no_server_after(&search.tried)),
                // Boxed, so that sessions that need not wait pay nothing for it.
                Err(NoLease::Full) => queued::wait(pool, &client, search, &mut report).boxed().await?,
            };
            let mut lease = HeldLease::new(picked);
            let was_usable = is_usable(lease.server()); // panic mode picks servers that are down
            let began = Instant::now();
            report(Progress::Trying(lease.server()));
            // Cancel safe: a dropped attempt closes its socket, and `socket_fault` reads nothing from the client.
            let connected = tokio::select! {
                biased;
                connected = attempt(&mut lease, &options.connect, &client, tls, began) => connected,
                fault = socket_fault(client.socket) => return Err(DialError::ClientFault(fault)),
            };
            // A server that was disabled or went down meanwhile may be an old primary: it must not get the client.
            let connected = match connected {
                Ok((socket, _)) if is_out_of_use(pool, lease.server(), was_usable) => {
                    Err(AttemptError::WentDown(socket))
                }
                connected => connected,
            };
            let failure = connected.as_ref().err().map(AttemptError::failure);
            let AfterAttempt { goes_on, ejected_for } = match &connected {
                Ok(_) => AfterAttempt::default(),
                Err(error) => {
                    let server_failure = error.server_failure();
                    search.record_failure(pool, lease.lease(), options.retries, server_failure, Instant::now())
                }
            };
            let ended_ejection = failure.is_none() && !client.awaits_answer && pool.record_connect(lease.lease());
            report(Progress::Ended(Attempt {
                server: lease.server(),
                took: began.elapsed(),
                failure,
                tls_error: connected.as_ref().err().and_then(AttemptError::tls_error),
                ejected_for,
                ended_ejection,
            }));
            match connected {
                Ok((socket, tls)) => return Ok(Dialled { socket, tls, lease }),
                Err(error) => error.close(lease),
            }
            if !goes_on {
                return Err(DialError::ConnectFailed);
            }
        }
    }
}

/// Whether a server is neither down nor disabled. A stand-in may be down: its checks require the role of the servers
/// that it stands in for.
fn is_usable(server: &Server) -> bool {
    (server.check_state() != CheckState::Down || server.is_stand_in()) && !server.is_disabled()
}

/// Whether the server of an attempt may no longer get the client: it is not usable, and panic mode does not use it
/// either. `was_usable`: whether it was usable before the attempt.
fn is_out_of_use(pool: &Pool, server: &Server, was_usable: bool) -> bool {
    if !was_usable {
        // Panic mode picked the server. If the panic has ended since then, the client still gets the server.
        return server.is_disabled() || server.is_unfit();
    }
    let in_panic = |member: &Member| member.id() == server.id() && pool.uses_in_panic(member, Instant::now());
    // The list of servers is shared by all workers: it is read only if the server is not usable.
    !is_usable(server) && !pool.servers().iter().any(in_panic)
}

/// Closes a connection that will not be used. A lease that must be held is given back when the server has closed the
/// connection, too.
pub fn close_unused(mut socket: TcpStream, lease: HeldLease) {
    if lease.must_be_held() {
        lease.give_back_after(async move {
            let _ = socket.shutdown().await;
            read_closed(&socket).await;
        });
    }
}

/// Why an attempt failed.
enum AttemptError {
    Connect(io::Error),
    /// The TLS handshake on this connection failed.
    Tls(TlsFailure, TcpStream),
    /// The TLS handshake on this connection was not complete in time.
    TlsTimeout(TcpStream),
    /// The server went down or was disabled meanwhile.
    WentDown(TcpStream),
}

impl AttemptError {
    /// Closes the connection, if there was one. Gives the lease back, now or after a while ([`HeldLease`]).
    fn close(self, lease: HeldLease) {
        match self {
            // The drop keeps the place for a while: the kernel may have connected at the last moment.
            Self::Connect(error) if error.kind() == io::ErrorKind::TimedOut => drop(lease),
            Self::Connect(_) => lease.give_back(),
            Self::Tls(_, socket) | Self::TlsTimeout(socket) | Self::WentDown(socket) => close_unused(socket, lease),
        }
    }

    fn failure(&self) -> ConnectFailure {
        match self {
            Self::Connect(error) => ConnectFailure::classify(error),
            Self::Tls(..) => ConnectFailure::Tls,
            Self::TlsTimeout(_) => ConnectFailure::Timeout,
            Self::WentDown(_) => ConnectFailure::WentDown,
        }
    }

    fn tls_error(&self) -> Option<&HandshakeError> {
        match self {
            Self::Connect(_) | Self::TlsTimeout(_) | Self::WentDown(_) => None,
            Self::Tls(failure, _) => Some(&failure.error),
        }
    }

    /// How the attempt counts against the server. `None`: not at all, because the fault may be that of the client or of
    /// this host, or because the server is out of use anyway.
    fn server_failure(&self) -> Option<ServerFailure> {
        match self {
            Self::Connect(_) if self.failure().is_blamed_on_server() => Some(ServerFailure::Connect),
            Self::Tls(failure, _) if failure.may_be_client_fault => None,
            Self::Tls(..) | Self::TlsTimeout(_) => Some(ServerFailure::Tls),
            Self::Connect(_) | Self::WentDown(_) => None,
        }
    }
}

/// Connects to a server once.
async fn attempt(
    lease: &mut HeldLease,
    options: &ConnectOptions,
    client: &DialClient<'_>,
    tls: Option<&DialTls<'_>>,
    began: Instant,
) -> Result<(TcpStream, Option<Box<TlsConnection>>), AttemptError> {
    let deadline = began + options.timeout;
    lease.set_connecting();
    let address = &lease.server().spec().address;
    let socket = connect(address, options, Some(client.address), client.last_ack).await;
    let socket = socket.map_err(AttemptError::Connect)?;
    let Some(tls) = tls else {
        return Ok((socket, None));
    };
    // Boxed, so that sessions without TLS pay nothing for it.
    let handshake = timeout_at(deadline, begin_tls(&socket, lease.server(), tls).boxed()).await;
    match handshake {
        Ok(Ok(connection)) => Ok((socket, Some(connection))),
        Ok(Err(failure)) => Err(AttemptError::Tls(failure, socket)),
        Err(_) => Err(AttemptError::TlsTimeout(socket)),
    }
}
