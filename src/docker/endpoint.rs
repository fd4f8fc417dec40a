//! The address of a container in a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

/// The Docker network whose containers use the interfaces of their host.
pub(crate) const HOST_NETWORK: &str = "host";

/// The addresses of a container in one network. A missing or empty text: it has no address of that family.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NetworkEndpoint {
    #[serde(default, rename = "IPAddress")]
    ipv4: Option<String>,
    #[serde(default, rename = "GlobalIPv6Address")]
    ipv6: Option<String>,
}

impl NetworkEndpoint {
    /// The address of the container. If it has two, the IPv4 one.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        let ipv4 = self.ipv4.as_deref().and_then(|text| text.parse::<Ipv4Addr>().ok());
        let ipv6 = self.ipv6.as_deref().and_then(|text| text.parse::<Ipv6Addr>().ok());
        ipv4.map(IpAddr::from).or(ipv6.map(IpAddr::from))
    }
}
