//! Why an attempt to connect failed.

use std::io;

use super::bind_source::BindSourceError;
use crate::error::os_error;

/// Why an attempt to connect failed. Metrics and logs use the same word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectFailure {
    /// The server's host refused or reset the connection, or there is no such Unix socket.
    Refused,
    /// No answer within [`ConnectOptions::timeout`](super::ConnectOptions::timeout).
    Timeout,
    /// No route leads to the server's host, or this host has no address of the server's family.
    Unreachable,
    /// No local port is left for connections to the server (EADDRNOTAVAIL).
    NoPorts,
    /// The connection cannot come from the address that [`BindSource`](super::BindSource) names.
    NoSource,
    /// No file descriptor, no buffer or no memory is left. The word `no_descriptors` stands for all three.
    NoResources,
    /// The TLS handshake with the server failed.
    Tls,
    /// The server went down, lost its role, or was disabled while it was being connected to.
    WentDown,
    /// The server accepted the connection, and then said that it takes no sessions now, or the connection ended before
    /// the server's first message was complete.
    NotReady,
    /// Another error.
    Other,
}

impl ConnectFailure {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::NoPorts,
        Self::NoSource,
        Self::NoResources,
        Self::Tls,
        Self::WentDown,
        Self::NotReady,
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
            Self::NoSource => "no_source",
            Self::NoResources => "no_descriptors",
            Self::Tls => "tls",
            Self::WentDown => "went_down",
            Self::NotReady => "not_ready",
            Self::Other => "other",
        }
    }

    /// Whether the failure counts against the server, unless the client may be the reason.
    #[must_use]
    pub const fn is_blamed_on_server(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Timeout | Self::Unreachable | Self::Tls | Self::NotReady
        )
    }

    /// Whether this host is short of a resource, which says nothing about the server.
    #[must_use]
    pub const fn is_local_shortage(self) -> bool {
        matches!(self, Self::NoPorts | Self::NoResources)
    }

    /// Classifies an error of connecting, whatever contexts were added to it.
    #[must_use]
    pub fn classify(error: &io::Error) -> Self {
        if BindSourceError::is(error) {
            return Self::NoSource;
        }
        match os_error(error) {
            Some(libc::EADDRNOTAVAIL) => return Self::NoPorts,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => return Self::NoResources,
            _ => {}
        }
        match error.kind() {
            // No process has made the Unix socket yet.
            io::ErrorKind::NotFound => Self::Refused,
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            _ => Self::Other,
        }
    }
}
