//! A connection to a server: connect within a time; on failure the next pick; a bounded number of tries.
//!
//! The one stage that sees another: a failed connect asks the pool for the next server.

mod connect;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::addr::ClientAddr;
use crate::pool::{Lease, Pool, Server, ServerId};
use crate::socket::{Fault, socket_fault};
#[cfg(test)]
pub(crate) use connect::PLAIN;
pub use connect::{ConnectOptions, LastAck, connect, connect_for_ourselves};

/// How a session gets a connection to a server of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// How one is opened.
    pub connect: ConnectOptions,
    /// Further attempts, each on another server.
    pub retries: u32,
}

/// Why a connect failed: one word, the same in metrics and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectFailure {
    /// The server's machine said no.
    Refused,
    /// No answer within [`ConnectOptions::timeout`].
    Timeout,
    /// There is no way to the server's machine.
    Unreachable,
    /// We have no local port left towards it (EADDRNOTAVAIL).
    NoPorts,
    /// We have no descriptor or memory left.
    NoDescriptors,
    /// Something else.
    Other,
}

impl ConnectFailure {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::NoPorts,
        Self::NoDescriptors,
        Self::Other,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoPorts => "no_ports",
            Self::NoDescriptors => "no_descriptors",
            Self::Other => "other",
        }
    }

    /// Whether it speaks against the server, and not of a shortage of our own.
    #[must_use]
    pub const fn is_the_servers(self) -> bool {
        matches!(self, Self::Refused | Self::Timeout | Self::Unreachable)
    }

    /// Whether it tells of a shortage of our own, of which the server knows nothing.
    #[must_use]
    pub const fn is_our_shortage(self) -> bool {
        matches!(self, Self::NoPorts | Self::NoDescriptors)
    }

    /// What an error of connecting is.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => return Self::NoPorts,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => return Self::NoDescriptors,
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// What is told of a dialling while it goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// This server is being tried.
    Trying(&'a Arc<Server>),
    /// The attempt is over.
    Over(Attempt<'a>),
}

/// One attempt that is over.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// On whom.
    pub server: &'a Arc<Server>,
    /// How long it took.
    pub took: Duration,
    /// `None`: it connected.
    pub failure: Option<ConnectFailure>,
    /// The back-off, if the failure took the server out.
    pub ejected_for: Option<Duration>,
    /// Whether success brought the server back from an ejection.
    pub came_back: bool,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConnection {
    /// The pool had nobody to offer.
    NoServer,
    /// Every attempt failed.
    Failed,
    /// The client broke meanwhile.
    ClientBroke(Fault),
}

/// Connects to a server of the pool's choice. `tell` hears of every attempt when it begins and when it is over.
///
/// A client's end of stream is kept for later, its reset ends the dialling. Cancelling gives the place back.
///
/// # Errors
/// [`NoConnection`]: nobody was left to try, within 1 + [`DialLimits::retries`] attempts.
pub async fn dial(
    pool: &Pool,
    limits: &DialLimits,
    client: &TcpStream,
    address: ClientAddr,
    mut tell: impl FnMut(Progress<'_>),
) -> Result<(TcpStream, Lease), NoConnection> {
    let mut tried: Vec<ServerId> = Vec::new();
    loop {
        let began = Instant::now();
        let lease = pool.pick(address, &tried, began);
        let Some(lease) = lease else {
            return Err(if tried.is_empty() {
                NoConnection::NoServer
            } else {
                NoConnection::Failed
            });
        };
        tell(Progress::Trying(lease.server()));
        let connecting = connect(lease.server().spec().address, &limits.connect, LastAck::AtOnce);
        // Whichever is dropped: a connect that is given up leaves nothing behind, a watch takes nothing away.
        let connected = tokio::select! {
            biased;
            connected = connecting => connected,
            fault = socket_fault(client) => return Err(NoConnection::ClientBroke(fault)),
        };
        let failure = connected.as_ref().err().map(ConnectFailure::of);
        let ejected_for = match failure {
            Some(failure) if failure.is_the_servers() => pool.connect_failed(&lease, Instant::now()),
            _ => None,
        };
        let came_back = failure.is_none() && pool.connected(&lease);
        tell(Progress::Over(Attempt {
            server: lease.server(),
            took: began.elapsed(),
            failure,
            ejected_for,
            came_back,
        }));
        match connected {
            Ok(socket) => return Ok((socket, lease)),
            Err(_) if tried.len() < limits.retries as usize => tried.push(lease.server().id()),
            Err(_) => return Err(NoConnection::Failed),
        }
    }
}
