//! Addresses: a type for each role, all of which contain a `SocketAddr`.
//!
//! Modules do not exchange a bare `SocketAddr`, so that no code can hash by the address of a server, or log the peer as the
//! client.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};

use ipnet::{IpNet, Ipv4Net};
use rustix::net::netdevice::name_to_index;

/// Defines an address type, which is compared and displayed as the address in it. Only addresses of listeners and servers
/// may have the name of an interface, because only these are configured.
macro_rules! role {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($inner);

        impl $name {
            /// The address in this role.
            #[must_use]
            pub const fn new(address: SocketAddr) -> Self {
                Self(<$inner>::new(address))
            }

            /// The address as the system calls take it.
            #[must_use]
            pub const fn socket(self) -> SocketAddr {
                self.0.socket
            }

            /// The IP address.
            #[must_use]
            pub const fn ip(self) -> IpAddr {
                self.0.socket.ip()
            }

            /// The port.
            #[must_use]
            pub const fn port(self) -> u16 {
                self.0.socket.port()
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

/// The name of a network interface.
#[derive(Clone, Copy)]
pub struct Interface {
    name: [u8; Self::BYTES_MAX],
    length: u8,
}

impl Interface {
    /// The limit of the kernel: IFNAMSIZ without the zero byte at the end.
    const BYTES_MAX: usize = 15;

    /// `None`: the name is empty or too long for an interface.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut name = [0; Self::BYTES_MAX];
        name.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        let length = u8::try_from(text.len()).ok().filter(|length| *length > 0)?;
        Some(Self { name, length })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.name[..usize::from(self.length)]).unwrap_or_default() // built from a `str`
    }

    /// The index by which the kernel identifies the interface.
    ///
    /// # Errors
    /// Those of `socket` and SIOCGIFINDEX (netdevice(7)): ENODEV if there is no such interface.
    pub fn index(&self) -> io::Result<u32> {
        let any = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(name_to_index(&any, self.as_str())?)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
                Ok(Self(Scoped {
                    socket: socket.into(),
                    interface: Some(interface),
                }))
            }

            /// The same address and scope with another port.
            #[must_use]
            pub fn with_port(self, port: u16) -> Self {
                Self(self.0.with_port(port))
            }
        }
    )*};
}

with_interface!(ListenAddr, ServerAddr);

role! {
    /// The address of a listener.
    ListenAddr(Scoped)
}
role! {
    /// The remote address of an accepted connection.
    PeerAddr(Plain)
}
role! {
    /// The address of the client, which routing, hashing and the log use. It is that of the
    /// peer, unless the peer is trusted to name its client by a PROXY header.
    ClientAddr(Plain)
}
role! {
    /// The address of one server.
    ServerAddr(Scoped)
}

impl ListenAddr {
    /// Whether the kernel rejects binding both addresses. `[::]` is IPv6 only.
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

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is neither a network nor an address.
    #[error("`{0}` is not a network")]
    Malformed(String),
    /// It has bits set after its prefix; this is the network.
    #[error("`{0}` has bits set after its prefix")]
    HostBits(String, IpNet),
    /// Addresses of clients are IPv4 addresses then; this is the network.
    #[error("`{0}` is an IPv4-mapped IPv6 network, which matches no client")]
    Mapped(String, Ipv4Net),
}

impl NetworkError {
    /// What to write instead.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Malformed(_) => String::from(r#"write "10.0.0.0/8", "2001:db8::/32" or a plain address"#),
            Self::HostBits(_, network) => format!("write \"{network}\""),
            Self::Mapped(_, network) => format!("write \"{network}\""),
        }
    }
}

/// Parses a network, or a single address.
///
/// # Errors
/// Why it is none that can hold a client.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| NetworkError::Malformed(text.to_owned()))?,
    };
    if network.trunc() != network {
        return Err(NetworkError::HostBits(text.to_owned(), network.trunc()));
    }
    match ipv4_of_mapped(network) {
        Some(v4) => Err(NetworkError::Mapped(text.to_owned(), v4)),
        None => Ok(network),
    }
}

/// The IPv4 network of an IPv4-mapped one: of a network inside `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
fn ipv4_of_mapped(network: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(v6) = network else {
        return None;
    };
    let prefix = v6.prefix_len().checked_sub(96)?;
    Ipv4Net::new(v6.addr().to_ipv4_mapped()?, prefix).ok()
}

/// The location of a server as configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerLocation {
    /// An address.
    Address(ServerAddr),
    /// A host name for the system's resolver, and a port. Each address of the name is a server of its own.
    Name {
        /// The name as written.
        host: Box<str>,
        /// The port, the same for every address.
        port: u16,
    },
}

impl fmt::Display for ServerLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
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
    /// Whether addresses of this family are looked up.
    #[must_use]
    pub const fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}
