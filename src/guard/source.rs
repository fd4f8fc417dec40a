//! What counts as one source of sessions.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// How many bits of a client's address tell one source from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceBits {
    /// Of an IPv4 address, 0 to 32.
    pub ipv4: u8,
    /// Of an IPv6 address, 0 to 128.
    pub ipv6: u8,
}

impl Default for SourceBits {
    /// A host with IPv6 has a /64 network (RFC 4291, section 2.5.1), and any address in it.
    fn default() -> Self {
        Self { ipv4: 32, ipv6: 64 }
    }
}

/// One source: all addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpNet);

impl Source {
    /// The source of an address. An IPv4-mapped IPv6 address is an IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr, bits: SourceBits) -> Self {
        let address = address.to_canonical();
        let length = if address.is_ipv4() { bits.ipv4 } else { bits.ipv6 };
        Self(IpNet::new(address, length).unwrap_or_else(|_| address.into()).trunc())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_the_same_first_bits_are_one_source() {
        let source = |text: &str| Source::of(text.parse().unwrap(), SourceBits::default()).to_string();
        assert_eq!(source("192.0.2.1"), "192.0.2.1");
        assert_eq!(source("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(source("2001:db8::1:2:3"), "2001:db8::/64");
        let wide = SourceBits { ipv4: 24, ipv6: 0 };
        assert_eq!(
            Source::of("192.0.2.1".parse().unwrap(), wide).to_string(),
            "192.0.2.0/24"
        );
        assert_eq!(Source::of("2001:db8::1".parse().unwrap(), wide).to_string(), "::/0");
    }
}
