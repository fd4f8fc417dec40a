//! Network interfaces.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use rustix::net::netdevice::name_to_index;

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
    /// Those of `socket`, `bind` and SIOCGIFINDEX (netdevice(7)): ENODEV if there is no such interface.
    pub fn index(&self) -> io::Result<u32> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?; // the call needs a socket, of any kind
        Ok(name_to_index(&socket, self.as_str())?)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
