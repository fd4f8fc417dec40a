//! The addresses of this machine, and when they change: as the kernel routes them (rtnetlink(7)).
//!
//! The local routing table has the addresses of all interfaces, and the networks that are routed to this machine, such as that
//! of the loopback interface and those of `ip route add local`. A test by `bind` would not do: with
//! `net.ipv4.ip_nonlocal_bind` it succeeds for every address.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};

use crate::optional::OptionalCall;

static READ: OptionalCall = OptionalCall::new(
    "netlink(RTM_GETROUTE)",
    "a server at an address of this machine is not recognised as a listener of ours at all addresses",
);

/// The routing table `local`. Routes of the type `local` in other tables are for some packets only, such as the answers to
/// transparent connections.
const TABLE_LOCAL: u8 = libc::RT_TABLE_LOCAL;

/// The alignment of messages in an answer (`NLMSG_ALIGNTO` of netlink(3)).
const MESSAGE_ALIGNMENT: usize = 4;

/// The groups that get a message when a route changes. A new address always brings a route to it.
const ROUTE_GROUPS: u32 = (libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE) as u32;

/// The addresses of this machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    addresses: HashSet<IpAddr>,
    /// Networks of which all addresses are of this machine.
    networks: HashSet<IpNet>,
}

impl LocalAddresses {
    /// The addresses at this moment; none if the system does not tell them, which is logged.
    #[must_use]
    pub fn read() -> Self {
        let families = [AddressFamily::Inet, AddressFamily::Inet6];
        let networks = families.map(local_networks).into_iter().collect::<io::Result<Vec<_>>>();
        READ.try_result(networks.as_ref().map(|_| ()));
        networks.unwrap_or_default().into_iter().flatten().collect()
    }

    /// Whether this is an address of this machine.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip) || self.networks.iter().any(|network| network.contains(&ip))
    }
}

impl FromIterator<IpNet> for LocalAddresses {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let is_network = |network: &IpNet| network.prefix_len() < network.max_prefix_len();
        let (networks, addresses): (Vec<_>, Vec<_>) = networks.into_iter().partition(is_network);
        Self {
            addresses: addresses.iter().map(IpNet::addr).collect(),
            networks: networks.into_iter().collect(),
        }
    }
}

/// The destinations of the local routes of a family.
fn local_networks(family: AddressFamily) -> io::Result<Vec<IpNet>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let _ = socket.set_netlink_get_strict_chk(true); // without it, the kernel answers with all routes
    socket.send(&request(family), 0)?;
    let mut networks = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    networks.extend(destination(&route).filter(|_| is_local(&route)));
                }
                NetlinkPayload::Done(_) => return Ok(networks),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            let length = message.header.length as usize;
            rest = rest
                .get(length.next_multiple_of(MESSAGE_ALIGNMENT)..)
                .unwrap_or_default();
        }
    }
}

/// A request for the local routes of a family.
fn request(family: AddressFamily) -> Vec<u8> {
    let mut wanted = RouteMessage::default();
    wanted.header.address_family = family;
    wanted.header.table = TABLE_LOCAL;
    wanted.header.kind = RouteType::Local;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, RouteNetlinkMessage::GetRoute(wanted).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn is_local(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Local && route.header.table == TABLE_LOCAL
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let ip = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    });
    IpNet::new(ip?, route.header.destination_prefix_length).ok()
}

/// Reports that the addresses of this machine may have changed.
pub struct LocalAddressWatch(TokioSocket);

impl LocalAddressWatch {
    /// Begins to watch. To be called within a runtime.
    ///
    /// # Errors
    /// The system does not report changes.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, ROUTE_GROUPS))?;
        Ok(Self(socket))
    }

    /// Waits until an address has come or gone. Cancel safe.
    ///
    /// # Errors
    /// Those of reading the reports.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let report = match self.0.recv_from_full().await {
                Ok((report, _)) => report,
                // Reports were lost because there were too many.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            };
            let Ok(message) = NetlinkMessage::deserialize(&report) else {
                return Ok(());
            };
            // A router may change other routes thousands of times a second.
            if let NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
            ) = message.payload
                && is_local(&route)
            {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_told_from_others() {
        let networks = ["10.9.0.0/24", "198.51.100.7/32", "2001:db8::7/128"];
        let some: LocalAddresses = networks
            .map(|network| network.parse::<IpNet>().unwrap())
            .into_iter()
            .collect();
        let contains = |local: &LocalAddresses, ip: &str| local.contains(ip.parse().unwrap());
        for (ip, expected) in [
            ("10.9.0.77", true),
            ("10.9.1.77", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("2001:db8::7", true),
            ("2001:db8::8", false),
        ] {
            assert_eq!(contains(&some, ip), expected, "{ip}");
        }
        let own = LocalAddresses::read();
        assert!(contains(&own, "127.0.0.1") && contains(&own, "127.9.9.9") && !contains(&own, "192.0.2.1"));
    }
}
