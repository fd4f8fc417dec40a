//! Addresses: one machine type, several roles.
//!
//! A bare `SocketAddr` never crosses a module's border, so that nobody hashes by the address of a server or logs
//! the peer as the client.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};

use rustix::net::netdevice::name_to_index;

/// Addresses of each role are compared and shown as the address within; only listeners' and servers' may name an
/// interface, for only these are written by people.
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

            /// The machine's view of it.
            #[must_use]
            pub const fn socket(self) -> SocketAddr {
                self.0.socket
            }

            /// Its IP address.
            #[must_use]
            pub const fn ip(self) -> IpAddr {
                self.0.socket.ip()
            }

            /// Its port.
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

/// An address and nothing else.
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

/// An address whose scope (RFC 4007, section 11) may be written as the name of an interface. It is shown with that name,
/// and compared by the number the interface had when the name was looked up.
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
    /// The kernel's bound: IFNAMSIZ, less the zero byte at the end.
    const BYTES_MAX: usize = 15;

    /// `None`: no interface can have this name.
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
        std::str::from_utf8(&self.name[..usize::from(self.length)]).unwrap_or_default() // made of a `str`
    }

    /// The number that the kernel knows it by.
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
            /// An IPv6 address on an interface, whose number is looked up now. `address` has no scope yet.
            ///
            /// # Errors
            /// Those of [`Interface::index`].
            pub fn on(address: SocketAddrV6, interface: Interface) -> io::Result<Self> {
                let index = interface.index()?;
                let socket = SocketAddrV6::new(*address.ip(), address.port(), address.flowinfo(), index);
                Ok(Self(Scoped {
                    socket: socket.into(),
                    interface: Some(interface),
                }))
            }

            /// The same, scope and all, with another port.
            #[must_use]
            pub fn with_port(self, port: u16) -> Self {
                Self(self.0.with_port(port))
            }
        }
    )*};
}

with_interface!(ListenAddr, ServerAddr);

role! {
    /// Where a listener waits for clients.
    ListenAddr(Scoped)
}
role! {
    /// The other end of a client's socket.
    PeerAddr(Plain)
}
role! {
    /// Whom the peer speaks for: what routing, hashing and the log go by. The same as the peer's address until the
    /// PROXY protocol is accepted from it.
    ClientAddr(Plain)
}
role! {
    /// Where one server answers.
    ServerAddr(Scoped)
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

/// Which addresses of a host name are looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpFamily {
    /// All it has.
    #[default]
    Both,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl IpFamily {
    /// Whether it is looked up.
    #[must_use]
    pub const fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}
