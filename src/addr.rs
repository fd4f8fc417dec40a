//! Addresses: one machine type, several roles.
//!
//! A bare `SocketAddr` never crosses a module's border, so that nobody hashes by the address of a server or logs
//! the peer as the client.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SocketAddr);

        impl $name {
            /// The address in this role.
            #[must_use]
            pub const fn new(address: SocketAddr) -> Self {
                Self(address)
            }

            /// The machine's view of it.
            #[must_use]
            pub const fn socket(self) -> SocketAddr {
                self.0
            }

            /// Its IP address.
            #[must_use]
            pub const fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// Its port.
            #[must_use]
            pub const fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

role! {
    /// Where a listener waits for clients.
    ListenAddr
}
role! {
    /// The other end of a client's socket.
    PeerAddr
}
role! {
    /// Whom the peer speaks for: what routing, hashing and the log go by. The same as the peer's address until the
    /// PROXY protocol is accepted from it.
    ClientAddr
}
role! {
    /// Where one server answers.
    ServerAddr
}

impl ListenAddr {
    /// Whether the kernel takes two addresses for a conflict. `[::]` is IPv6 only everywhere here.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let is_any = self.ip().is_unspecified() || other.ip().is_unspecified();
        let is_same_family = self.ip().is_ipv4() == other.ip().is_ipv4();
        self.port() == other.port() && is_same_family && (self.ip() == other.ip() || is_any)
    }
}

impl From<PeerAddr> for ClientAddr {
    fn from(peer: PeerAddr) -> Self {
        Self(peer.0)
    }
}

/// Where a server is, as the configuration says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerPlace {
    /// An address, to be used as it is.
    Address(ServerAddr),
    /// A name for the system's resolver, and a port. Each address it resolves to is a server of its own.
    Name {
        /// The name, as written.
        host: Box<str>,
        /// The port, the same for every address.
        port: u16,
    },
}

impl fmt::Display for ServerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}
