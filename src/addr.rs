//! Addresses: a type for each role. Each contains a `SocketAddr`, or its counterpart on a Unix socket.
//!
//! Modules do not exchange a bare `SocketAddr` where its role matters, so that no code can hash by the address of a
//! server, or log the peer as the client.

mod interface;
mod location;
mod network;
mod unix;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

pub use interface::Interface;
pub use location::ServerLocation;
pub use network::{NetworkError, parse_network};
pub use unix::{UnixPath, UnixPathError, UnixPeer, UnixPlace};

/// Defines an address type, which is compared and displayed as the address in it. Only addresses of listeners and
/// servers may have the name of an interface, because only these are configured.
macro_rules! role {
    ($(#[$doc:meta])* $name:ident($ip:ty, $unix:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Address<$ip, $unix>);

        impl $name {
            /// The address in this role.
            #[must_use]
            pub const fn new(address: SocketAddr) -> Self {
                Self(Address::Ip(<$ip>::new(address)))
            }

            /// The end of a Unix socket in this role.
            #[must_use]
            pub const fn from_unix(end: $unix) -> Self {
                Self(Address::Unix(end))
            }

            /// The address as the system calls of TCP take it; `None` on a Unix socket.
            #[must_use]
            pub const fn socket(self) -> Option<SocketAddr> {
                match self.0 {
                    Address::Ip(address) => Some(address.socket),
                    Address::Unix(_) => None,
                }
            }

            /// The end of a Unix socket; `None` over TCP.
            #[must_use]
            pub const fn unix(&self) -> Option<&$unix> {
                match &self.0 {
                    Address::Ip(_) => None,
                    Address::Unix(end) => Some(end),
                }
            }

            /// The IP address; `None` on a Unix socket.
            #[must_use]
            pub fn ip(self) -> Option<IpAddr> {
                self.socket().map(|address| address.ip())
            }

            /// The port; `None` on a Unix socket.
            #[must_use]
            pub fn port(self) -> Option<u16> {
                self.socket().map(|address| address.port())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

/// An address over TCP, or an end of a Unix socket: its path, or the peer process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Address<I, U> {
    Ip(I),
    Unix(U),
}

impl<I: fmt::Display, U: fmt::Display> fmt::Display for Address<I, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(end) => end.fmt(f),
        }
    }
}

/// An address without the name of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Plain {
    socket: SocketAddr,
}

impl Plain {
    const fn new(socket: SocketAddr) -> Self {
        Self { socket }
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

/// An address whose scope (RFC 4007, section 11) may be the name of an interface. It is displayed with that name, and
/// compared by the index that the interface had when the name was looked up.
#[derive(Clone, Copy)]
struct Scoped {
    socket: SocketAddr,
    interface: Option<Interface>,
}

impl Scoped {
    const fn new(socket: SocketAddr) -> Self {
        Self {
            socket,
            interface: None,
        }
    }

    fn with_port(mut self, port: u16) -> Self {
        self.socket.set_port(port);
        self
    }
}

impl fmt::Display for Scoped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.interface {
            Some(interface) => write!(f, "[{}%{interface}]:{}", self.socket.ip(), self.socket.port()),
            None => self.socket.fmt(f),
        }
    }
}

impl PartialEq for Scoped {
    fn eq(&self, other: &Self) -> bool {
        self.socket == other.socket
    }
}

impl Eq for Scoped {}

impl Hash for Scoped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.socket.hash(state);
    }
}

impl PartialOrd for Scoped {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scoped {
    fn cmp(&self, other: &Self) -> Ordering {
        self.socket.cmp(&other.socket)
    }
}

macro_rules! with_interface {
    ($($name:ident),*) => {$(
        impl $name {
            /// An IPv6 address on an interface, whose index is looked up. `address` has no scope yet.
            ///
            /// # Errors
            /// Those of [`Interface::index`].
            pub fn on_interface(address: SocketAddrV6, interface: Interface) -> io::Result<Self> {
                let index = interface.index()?;
                let socket = SocketAddrV6::new(*address.ip(), address.port(), address.flowinfo(), index);
                Ok(Self(Address::Ip(Scoped {
                    socket: socket.into(),
                    interface: Some(interface),
                })))
            }

            /// The same address and scope with another port. A Unix socket has none, and stays as it is.
            #[must_use]
            pub fn with_port(self, port: u16) -> Self {
                match self.0 {
                    Address::Ip(address) => Self(Address::Ip(address.with_port(port))),
                    Address::Unix(_) => self,
                }
            }
        }
    )*};
}

with_interface!(ListenAddr, ServerAddr);

role! {
    /// The address of a listener.
    ListenAddr(Scoped, UnixPath)
}
role! {
    /// The remote address of an accepted connection.
    PeerAddr(Plain, UnixPeer)
}
role! {
    /// The address of the client, which routing, hashing and the log use. It is that of the peer, unless a trusted peer
    /// names its client in a PROXY header.
    ClientAddr(Plain, UnixPeer)
}
role! {
    /// The address of one server.
    ServerAddr(Scoped, UnixPath)
}

impl ListenAddr {
    /// Whether the kernel may reject binding both addresses without SO_REUSEPORT. Scopes are ignored; `[::]` is IPv6
    /// only.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let (Some(one), Some(two)) = (self.socket(), other.socket()) else {
            return self == other;
        };
        let is_any = one.ip().is_unspecified() || two.ip().is_unspecified();
        let is_same_family = one.is_ipv4() == two.is_ipv4();
        one.port() == two.port() && is_same_family && (one.ip() == two.ip() || is_any)
    }

    /// Whether a socket at this address gets the connections to `other` while no socket listens at `other` itself.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        let is_any = self.ip().is_some_and(|ip| ip.is_unspecified());
        self == other || (is_any && self.overlaps(other))
    }

    /// Whether a connection from this machine to the server would be accepted at this address. `false` if that depends
    /// on the interfaces of the machine. Two Unix sockets are compared by their [places](UnixPlace).
    #[must_use]
    pub fn accepts_connections_to(self, server: ServerAddr) -> bool {
        let (Some(own), Some(address)) = (self.socket(), server.socket()) else {
            return matches!((self.unix(), server.unix()), (Some(own), Some(path)) if own.is_same_socket(path));
        };
        let ip = address.ip().to_canonical();
        let is_same_family = own.is_ipv4() == ip.is_ipv4();
        let is_local = own.ip().is_unspecified() && is_same_family && ip.is_loopback();
        let is_same = match (own, address) {
            (SocketAddr::V6(listening), SocketAddr::V6(server)) if ip.is_ipv6() => {
                (listening.ip(), listening.scope_id()) == (server.ip(), server.scope_id())
            }
            _ => own.ip() == ip,
        };
        own.port() == address.port() && (is_same || is_local)
    }

    /// As [`Self::accepts_connections_to`], for the location of a server. Host names are not looked up: only
    /// `localhost` is known.
    #[must_use]
    pub fn is_reached_at(self, server: &ServerLocation) -> bool {
        match server {
            ServerLocation::Address(server) | ServerLocation::Resolved { address: server, .. } => {
                self.accepts_connections_to(*server)
            }
            ServerLocation::Name { host, port } => {
                let localhost = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                let is_local = |ip: IpAddr| ip.is_unspecified() || localhost.contains(&ip);
                let is_own = |own: SocketAddr| own.port() == *port && is_local(own.ip());
                host.eq_ignore_ascii_case("localhost") && self.socket().is_some_and(is_own)
            }
        }
    }
}

impl ServerAddr {
    /// The IP address, with the interface of a link-local one (`fe80::1%eth0`); of a Unix socket, `unix:` and its path.
    #[must_use]
    pub fn host_text(self) -> String {
        let text = self.to_string();
        let ipv6 = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        match (ipv6, self.ip()) {
            (Some((ip, _port)), _) => ip.to_owned(),
            (None, Some(ip)) => ip.to_string(),
            (None, None) => text,
        }
    }
}

/// A client without the parts that differ between its connections: the port, or the process ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientHost {
    /// The host with this address.
    Ip(IpAddr),
    /// The user with this uid, over a Unix socket.
    User(u32),
}

impl ClientAddr {
    /// The client without the parts that differ between its connections.
    #[must_use]
    pub fn host(self) -> ClientHost {
        match self.0 {
            Address::Ip(address) => ClientHost::Ip(address.socket.ip()),
            Address::Unix(peer) => ClientHost::User(peer.uid),
        }
    }
}

/// Whether the address can be that of one host: it is neither unspecified nor a multicast or broadcast address. An
/// unspecified address (`0.0.0.0`, `::`) names no host, although connections to it reach this machine.
#[must_use]
pub fn is_of_one_host(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

impl From<IpAddr> for ClientHost {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl From<PeerAddr> for ClientAddr {
    fn from(peer: PeerAddr) -> Self {
        Self(peer.0)
    }
}

/// The address families that are looked up for a host name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpFamily {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// Only IPv4.
    V4,
    /// Only IPv6.
    V6,
}

impl IpFamily {
    /// Whether addresses of the same family as `address` are looked up.
    #[must_use]
    pub const fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}
