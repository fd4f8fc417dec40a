//! The addresses of this machine, read from the kernel's routes (rtnetlink(7)), and a watch for changes of them.
//!
//! The local routing table has the addresses of all interfaces (except those in a VRF, which has a table of its own),
//! and the networks that are routed to this machine, such as that of the loopback interface and those of
//! `ip route add local`. A test by `bind` would not do: with `net.ipv4.ip_nonlocal_bind` it succeeds for every address.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};

/// The routing table `local`. Routes of the type `local` in other tables are for some packets only, such as the answers
/// to transparent connections.
const TABLE_LOCAL: u8 = libc::RT_TABLE_LOCAL;

/// The alignment of messages in an answer (`NLMSG_ALIGNTO` of netlink(3)).
const MESSAGE_ALIGNMENT: usize = 4;

/// The types of messages about a route.
const ROUTE_MESSAGES: [u16; 2] = [libc::RTM_NEWROUTE, libc::RTM_DELROUTE];

/// How often the routes are read at most. They are read again if they have changed during a read.
const DUMPS_MAX: usize = 5;

/// The multicast groups that get a message when a route changes. A new address always brings a route to it.
const ROUTE_GROUPS: u32 = (libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE) as u32;

/// The addresses of this machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    addresses: HashSet<IpAddr>,
    /// Networks of which all addresses are of this machine.
    networks: HashSet<IpNet>,
}

impl LocalAddresses {
    /// The addresses at this moment. Blocks until the kernel has answered.
    ///
    /// # Errors
    /// The system does not report them, or they change faster than it reports them.
    pub fn read() -> io::Result<Self> {
        let mut networks = local_networks(AddressFamily::Inet)?;
        networks.extend(local_networks(AddressFamily::Inet6)?);
        Ok(networks.into_iter().collect())
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
    let mut read = dump(family);
    for _ in 1..DUMPS_MAX {
        if !matches!(&read, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
            break;
        }
        read = dump(family);
    }
    read
}

fn dump(family: AddressFamily) -> io::Result<Vec<IpNet>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // If this fails, the kernel answers with all routes, and `Dump` ignores those that are not local.
    let _ = socket.set_netlink_get_strict_chk(true);
    socket.send(&request(family), 0)?;
    let mut answer = Dump::default();
    while !answer.is_complete {
        answer.take(&socket.recv_from_full()?.0)?;
    }
    match answer.is_interrupted {
        true => Err(io::ErrorKind::Interrupted.into()),
        false => Ok(answer.networks),
    }
}

/// What the kernel has answered so far.
#[derive(Debug, Default)]
struct Dump {
    /// The destinations of the local routes.
    networks: Vec<IpNet>,
    is_complete: bool,
    /// Routes have changed during the answer: some may be missing.
    is_interrupted: bool,
}

impl Dump {
    /// Takes the next part. A route that cannot be parsed is left out: it is of a kind that this program does not know.
    ///
    /// # Errors
    /// The kernel cannot answer.
    fn take(&mut self, part: &[u8]) -> io::Result<()> {
        for (header, bytes) in messages(part) {
            self.is_interrupted |= header.flags() & NLM_F_DUMP_INTR != 0;
            let Ok(message) = NetlinkMessage::deserialize(bytes) else {
                continue;
            };
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) if is_local(&route.header) => {
                    self.networks.extend(destination(&route));
                }
                NetlinkPayload::Done(done) if done.code < 0 => return Err(io::Error::from_raw_os_error(-done.code)),
                NetlinkPayload::Done(_) => self.is_complete = true,
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The messages in a datagram, with their bytes.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (NetlinkBuffer<&[u8]>, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = message.length() as usize;
        let bytes = &rest[..length];
        rest = rest
            .get(length.next_multiple_of(MESSAGE_ALIGNMENT)..)
            .unwrap_or_default();
        Some((message, bytes))
    })
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

fn is_local(route: &RouteHeader) -> bool {
    route.kind == RouteType::Local && route.table == TABLE_LOCAL
}

/// Whether a report is of a local route. Reads only the headers of routes, because on a router other routes may change
/// thousands of times a second.
fn is_of_local_route(report: &[u8]) -> bool {
    messages(report).any(|(header, _)| {
        let is_route = ROUTE_MESSAGES.contains(&header.message_type());
        is_route && RouteHeader::parse(header.payload()).is_ok_and(|route| is_local(&route))
    })
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

    /// Waits until an address may have been added or removed. Cancel safe.
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
            if is_of_local_route(&report) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DoneMessage;

    use super::*;

    const TABLE_MAIN: u8 = libc::RT_TABLE_MAIN;

    #[test]
    fn only_addresses_of_this_machine_are_contained() {
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
        let own = LocalAddresses::read().unwrap();
        assert!(contains(&own, "127.0.0.1") && contains(&own, "127.9.9.9") && !contains(&own, "192.0.2.1"));
    }

    /// A message about a route to 198.51.100.`last`, of this kind and in this table.
    fn route(table: u8, kind: RouteType, last: u8) -> Vec<u8> {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.destination_prefix_length = 32;
        (route.header.table, route.header.kind) = (table, kind);
        let destination = RouteAddress::Inet([198, 51, 100, last].into());
        route.attributes.push(RouteAttribute::Destination(destination));
        bytes(RouteNetlinkMessage::NewRoute(route).into())
    }

    fn bytes(payload: NetlinkPayload<RouteNetlinkMessage>) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// The last message of an answer. `code`: a negative error number, or 0 for success.
    fn done(code: i32) -> Vec<u8> {
        let mut done = DoneMessage::default();
        done.code = code;
        bytes(NetlinkPayload::Done(done))
    }

    /// The same message with an attribute that claims to be longer than the message.
    fn unparsable(mut message: Vec<u8>) -> Vec<u8> {
        message[16 + 12] = 0xff; // the attribute follows the netlink header and the route header
        assert!(NetlinkMessage::<RouteNetlinkMessage>::deserialize(&message).is_err());
        message
    }

    /// The same message as part of an answer during which routes have changed.
    fn interrupted(mut message: Vec<u8>) -> Vec<u8> {
        NetlinkBuffer::new(&mut message).set_flags(NLM_F_DUMP_INTR);
        message
    }

    #[test]
    fn a_route_that_cannot_be_parsed_does_not_hide_the_others() {
        let local = |last| route(TABLE_LOCAL, RouteType::Local, last);
        let mut dump = Dump::default();
        dump.take(&[local(1), unparsable(local(2)), local(3)].concat()).unwrap();
        dump.take(&[route(TABLE_MAIN, RouteType::Unicast, 4), local(5)].concat())
            .unwrap();
        assert!(!dump.is_complete);
        dump.take(&done(0)).unwrap();
        assert!(dump.is_complete && !dump.is_interrupted);
        let networks = dump.networks.iter().map(|network| network.addr().to_string());
        assert!(networks.eq(["198.51.100.1", "198.51.100.3", "198.51.100.5"]));
    }

    #[test]
    fn a_failed_answer_is_an_error_and_an_inconsistent_one_is_marked() {
        let failed = Dump::default().take(&done(-libc::ENOBUFS));
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        let mut dump = Dump::default();
        dump.take(&interrupted(route(TABLE_LOCAL, RouteType::Local, 1)))
            .unwrap();
        dump.take(&done(0)).unwrap();
        assert!(dump.is_complete && dump.is_interrupted);
        assert!(Dump::default().take(&[7, 0, 0]).is_ok(), "not a message");
    }

    #[test]
    fn only_reports_of_local_routes_count() {
        assert!(is_of_local_route(&route(TABLE_LOCAL, RouteType::Local, 1)));
        assert!(is_of_local_route(&unparsable(route(TABLE_LOCAL, RouteType::Local, 1))));
        let unicast = || route(TABLE_MAIN, RouteType::Unicast, 1);
        assert!(!is_of_local_route(&unicast()));
        assert!(!is_of_local_route(&unparsable(unicast())));
        assert!(!is_of_local_route(&route(TABLE_LOCAL, RouteType::Broadcast, 1)));
        assert!(!is_of_local_route(&done(0)));
        assert!(!is_of_local_route(b"odd"));
    }
}
