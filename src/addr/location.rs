//! Where a server is, as configured.

use std::fmt;

use super::ServerAddr;

/// The location of a server as configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerLocation {
    /// An address.
    Address(ServerAddr),
    /// A host name for the system's resolver, and a port. Each address of the name is a server of its own.
    Name {
        /// The name as written; in its ASCII form (`xn--`) if it was not ASCII.
        host: Box<str>,
        /// The port, the same for every address.
        port: u16,
    },
    /// An address of a host name, as in `db.internal:5432@10.0.0.1`: the name is not looked up.
    Resolved {
        /// `host:port`, with the host as in [`Self::Name`].
        host_and_port: Box<str>,
        /// The address, with the same port.
        address: ServerAddr,
    },
}

impl ServerLocation {
    /// The location with its host name in lower case, because host names are compared without case (RFC 4343).
    #[must_use]
    pub fn normalized(&self) -> Self {
        match self {
            Self::Address(_) => self.clone(),
            Self::Name { host, port } => Self::Name {
                host: host.to_ascii_lowercase().into(),
                port: *port,
            },
            Self::Resolved { host_and_port, address } => Self::Resolved {
                host_and_port: host_and_port.to_ascii_lowercase().into(),
                address: *address,
            },
        }
    }

    /// Whether it is a Unix socket.
    #[must_use]
    pub const fn is_unix(&self) -> bool {
        match self {
            Self::Address(address) => address.unix().is_some(),
            Self::Name { .. } | Self::Resolved { .. } => false,
        }
    }
}

impl fmt::Display for ServerLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Resolved { host_and_port, address } => write!(f, "{host_and_port}@{}", address.host_text()),
        }
    }
}
