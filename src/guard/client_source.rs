//! What counts as one source of sessions.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use ipnet::IpNet;

use crate::addr::ClientHost;

/// How many bits of a client's address tell one source from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceBits {
    /// Of an IPv4 address, 0 to 32.
    pub ipv4: u8,
    /// Of an IPv6 address, 0 to 128.
    pub ipv6: u8,
}

impl Default for SourceBits {
    /// A host with IPv6 has a /64 network (RFC 4291, section 2.5.1), and can use any address in it.
    fn default() -> Self {
        Self { ipv4: 32, ipv6: 64 }
    }
}

/// One source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientSource {
    /// All addresses with the same first bits.
    Network(IpNet),
    /// A user of this machine, over a Unix socket.
    User(u32),
}

impl ClientSource {
    /// The source of a client. An IPv4-mapped IPv6 address counts as the IPv4 address.
    #[must_use]
    pub fn new(client: ClientHost, bits: SourceBits) -> Self {
        let address = match client {
            ClientHost::Ip(address) => address.to_canonical(),
            ClientHost::User(uid) => return Self::User(uid),
        };
        let length = if address.is_ipv4() { bits.ipv4 } else { bits.ipv6 };
        Self::Network(IpNet::new(address, length).unwrap_or_else(|_| address.into()).trunc())
    }
}

impl fmt::Display for ClientSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::User(uid) => write!(f, "unix:uid={uid}"),
        }
    }
}

/// A source with its hash. The hash is computed once for each guard that is asked. Its key is random for each process,
/// so that no client knows which sources collide in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashedClientSource {
    pub(super) hash: u64,
    pub(super) source: ClientSource,
}

impl From<ClientSource> for HashedClientSource {
    fn from(source: ClientSource) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self {
            source,
            hash: KEY.hash_one(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source_of(address: &str, bits: SourceBits) -> String {
        ClientSource::new(address.parse::<IpAddr>().unwrap().into(), bits).to_string()
    }

    #[test]
    fn addresses_with_equal_first_bits_are_one_source() {
        let source = |text: &str| source_of(text, SourceBits::default());
        assert_eq!(source("192.0.2.1"), "192.0.2.1");
        assert_eq!(source("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(source("2001:db8::1:2:3"), "2001:db8::/64");
        let wide = SourceBits { ipv4: 24, ipv6: 0 };
        assert_eq!(source_of("192.0.2.1", wide), "192.0.2.0/24");
        assert_eq!(source_of("2001:db8::1", wide), "::/0");
    }

    #[test]
    fn a_user_of_this_machine_is_one_source() {
        let user = ClientSource::new(ClientHost::User(1000), SourceBits { ipv4: 0, ipv6: 0 });
        assert_eq!(user.to_string(), "unix:uid=1000");
    }
}
