//! Networks of clients.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is neither a network nor an address.
    #[error("`{0}` is not a network")]
    Malformed(String),
    /// It has bits set after its prefix. The second value is the network without them.
    #[error("`{0}` has bits set after its prefix")]
    HostBits(String, IpNet),
    /// It is an IPv4-mapped network. It matches no client, because IPv4-mapped addresses of clients are converted to
    /// IPv4. The second value is the IPv4 network.
    #[error("`{0}` is an IPv4-mapped IPv6 network, which matches no client")]
    Mapped(String, Ipv4Net),
}

impl NetworkError {
    /// What to write instead of the text.
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
/// Why it is not a network that can hold a client.
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

/// The IPv4 network that an IPv4-mapped IPv6 network stands for. `None`: the network is not IPv4-mapped, that is, not
/// inside `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
fn ipv4_of_mapped(network: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(v6) = network else {
        return None;
    };
    let prefix = v6.prefix_len().checked_sub(96)?;
    Ipv4Net::new(v6.addr().to_ipv4_mapped()?, prefix).ok()
}
