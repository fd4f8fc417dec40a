//! Connects a session to a server: a time limit for each attempt; after a failure the pool's next pick; a bounded number of
//! attempts.
//!
//! This is the one stage that uses another: after a failed attempt it asks the pool for another server.

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
pub(crate) use connect::TEST_CONNECT;
pub use connect::{ConnectOptions, LastAck, connect, connect_for_check};

/// How a session is connected to a server of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// How a connection is opened.
    pub connect: ConnectOptions,
    /// Attempts after the first, each to another server.
    pub retries: u32,
}

/// Why an attempt to connect failed. Metrics and logs use the same word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectFailure {
    /// The server's host refused the connection.
    Refused,
    /// No answer within [`ConnectOptions::timeout`].
    Timeout,
    /// No route leads to the server's host.
    Unreachable,
    /// No local port is left for connections to the server (EADDRNOTAVAIL).
    NoPorts,
    /// No file descriptor or no memory is left.
    NoDescriptors,
    /// Another error.
    Other,
}

impl ConnectFailure {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::NoPorts,
        Self::NoDescriptors,
        Self::Other,
    ];

    /// The word for it in metrics and logs.
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

    /// Whether it counts as a failure of the server.
    #[must_use]
    pub const fn is_server_fault(self) -> bool {
        matches!(self, Self::Refused | Self::Timeout | Self::Unreachable)
    }

    /// Whether this host is short of a resource, which says nothing about the server.
    #[must_use]
    pub const fn is_local_shortage(self) -> bool {
        matches!(self, Self::NoPorts | Self::NoDescriptors)
    }

    /// Classifies an error of connecting.
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

/// The progress of [`dial`], reported while it runs.
#[derive(Debug)]
pub enum Progress<'a> {
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
    /// The back-off, if the failure ejected the server.
    pub ejected_for: Option<Duration>,
    /// Whether success ended an ejection of the server.
    pub ended_ejection: bool,
}

/// Why [`dial`] returns no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// The pool has no server to try.
    NoServer,
    /// Every attempt failed.
    ConnectFailed,
    /// The client's connection failed meanwhile.
    ClientFault(Fault),
}

/// Connects to a server that the pool picks. `report` is called when an attempt begins and when it has ended.
///
/// The client's end of stream is left to be read later; a reset by the client ends the dialling. Dropping the future drops
/// the lease.
///
/// # Errors
/// [`DialError`]: no server is left to try, or 1 + [`DialLimits::retries`] attempts have failed.
pub async fn dial(
    pool: &Pool,
    limits: &DialLimits,
    client: &TcpStream,
    address: ClientAddr,
    mut report: impl FnMut(Progress<'_>),
) -> Result<(TcpStream, Lease), DialError> {
    let mut tried: Vec<ServerId> = Vec::new();
    loop {
        let began = Instant::now();
        let lease = pool.pick(address, &tried, began);
        let Some(lease) = lease else {
            return Err(if tried.is_empty() {
                DialError::NoServer
            } else {
                DialError::ConnectFailed
            });
        };
        report(Progress::Trying(lease.server()));
        let connecting = connect(lease.server().spec().address, &limits.connect, LastAck::AtOnce);
        // Cancel safe: a dropped connect closes its socket, and `socket_fault` reads nothing from the client.
        let connected = tokio::select! {
            biased;
            connected = connecting => connected,
            fault = socket_fault(client) => return Err(DialError::ClientFault(fault)),
        };
        let failure = connected.as_ref().err().map(ConnectFailure::of);
        let ejected_for = match failure {
            Some(failure) if failure.is_server_fault() => pool.connect_failed(&lease, Instant::now()),
            _ => None,
        };
        let ended_ejection = failure.is_none() && pool.connected(&lease);
        report(Progress::Ended(Attempt {
            server: lease.server(),
            took: began.elapsed(),
            failure,
            ejected_for,
            ended_ejection,
        }));
        match connected {
            Ok(socket) => return Ok((socket, lease)),
            Err(_) if tried.len() < limits.retries as usize => tried.push(lease.server().id()),
            Err(_) => return Err(DialError::ConnectFailed),
        }
    }
}
