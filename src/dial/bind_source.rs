//! The address that connections to servers come from: `bind_source` of a pool.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use socket2::Socket;

use super::late_port::choose_port_late;
use crate::addr::{ClientAddr, ServerAddr};
use crate::error::chain;
use crate::optional::OptionalCall;

/// If this option fails, the kernel chooses the port in `bind`. Then connections from one address cannot share a port,
/// even if they go to different servers. 28,000: about as many ports as net.ipv4.ip_local_port_range has by default.
static LATE_PORT: OptionalCall = OptionalCall::new(
    "setsockopt(IP_BIND_ADDRESS_NO_PORT)",
    "each address of `bind_source` has ports for 28,000 connections to all servers together",
);

/// Whether it was logged, for any pool without `bind_source`, that no port is left for connections to a server.
static NO_PORTS_WAS_LOGGED: AtomicBool = AtomicBool::new(false);

/// Logs that no local port is left for connections to a server. With `bind_source`, this is logged once for each
/// configuration of the pool; without, once for the process.
pub(super) fn log_no_ports(source: Option<&BindSource>, server: &ServerAddr) {
    match source {
        Some(source) => source.log_no_ports(server),
        None if NO_PORTS_WAS_LOGGED.swap(true, Relaxed) => {}
        None => {
            let remedy =
                "list addresses of this machine in `bind_source` of the pool, or widen net.ipv4.ip_local_port_range";
            tracing::warn!(%server, remedy, "all local ports are in use for connections to a server");
        }
    }
}

/// Gives each connection to a server of a pool its source address. Several addresses are used in turn.
#[derive(Clone, Debug)]
pub struct BindSource(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    from: BindAddresses,
    /// The next turn. Each address family has a counter, so that the addresses of each family take turns.
    turn_v4: AtomicUsize,
    turn_v6: AtomicUsize,
    /// Whether an error of [`BindSource::bind`] was logged.
    bind_error_was_logged: AtomicBool,
    /// Whether it was logged that no port is left.
    no_ports_was_logged: AtomicBool,
}

/// The value of `bind_source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddresses {
    /// Addresses of this machine, in turn.
    Addresses(Vec<IpAddr>),
    /// The address of the client; for checks, any.
    Client,
}

/// Why a connection cannot come from the address that it should.
#[derive(Debug, thiserror::Error)]
pub enum BindSourceError {
    /// None of the addresses has the address family of the server.
    #[error("no address of `bind_source` has the address family of the server")]
    NoneFits,
    /// The server has another address family than the client.
    #[error("`bind_source` is \"client\", and client and server have different address families")]
    OtherFamily,
    /// The system does not let the process use addresses of other machines.
    #[error(
        "`bind_source` is \"client\", and the system refuses IP_TRANSPARENT: it needs CAP_NET_RAW or CAP_NET_ADMIN, and \
         routes that bring the servers' answers back to this machine"
    )]
    Transparent(#[source] io::Error),
    /// This address of the list cannot be bound.
    #[error("cannot bind {0} of `bind_source`; `ip address` shows the addresses of this machine")]
    Bind(IpAddr, #[source] io::Error),
    /// The address of the client cannot be bound.
    #[error("`bind_source` is \"client\", and the client's address {0} cannot be bound")]
    BindClient(IpAddr, #[source] io::Error),
}

impl PartialEq for BindSource {
    fn eq(&self, other: &Self) -> bool {
        self.0.from == other.0.from
    }
}

impl Eq for BindSource {}

impl BindSource {
    /// Connections come from these addresses.
    #[must_use]
    pub fn new(from: BindAddresses) -> Self {
        Self(Arc::new(Shared {
            from,
            turn_v4: AtomicUsize::new(0),
            turn_v6: AtomicUsize::new(0),
            bind_error_was_logged: AtomicBool::new(false),
            no_ports_was_logged: AtomicBool::new(false),
        }))
    }

    /// How many addresses a connection to this server may come from: after this many attempts it is known that all
    /// their ports are in use.
    pub(super) fn count(&self, server: SocketAddr) -> usize {
        match &self.0.from {
            BindAddresses::Addresses(addresses) => fitting(addresses, server).count(),
            BindAddresses::Client => 1,
        }
    }

    /// The turn of the first attempt of the next connection to this server. The caller adds 1 for each further attempt
    /// of that connection. So no attempt has the address of an earlier attempt of the same connection, whatever other
    /// connections do meanwhile.
    pub(super) fn take_turn(&self, server: SocketAddr) -> usize {
        let turn = if server.is_ipv4() {
            &self.0.turn_v4
        } else {
            &self.0.turn_v6
        };
        turn.fetch_add(1, Relaxed)
    }

    /// Binds a socket, which is to be connected to this server, to the address of this turn or to that of the client. A
    /// check has no client: with [`BindAddresses::Client`], its socket is not bound. The port is chosen when the socket
    /// is connected, unless the system refuses that ([`LATE_PORT`]).
    pub(super) fn bind(
        &self,
        socket: &Socket,
        server: SocketAddr,
        client: Option<ClientAddr>,
        turn: usize,
    ) -> Result<(), BindSourceError> {
        let address = match (&self.0.from, client) {
            (BindAddresses::Addresses(addresses), _) => {
                address_at(turn, addresses, server).ok_or(BindSourceError::NoneFits)?
            }
            (BindAddresses::Client, None) => return Ok(()), // a check
            (BindAddresses::Client, Some(client)) => {
                let ip = client.ip().filter(|ip| ip.is_ipv4() == server.is_ipv4());
                let ip = ip.ok_or(BindSourceError::OtherFamily)?;
                set_transparent(socket, ip).map_err(BindSourceError::Transparent)?;
                ip
            }
        };
        LATE_PORT.record_result(choose_port_late(socket));
        let bound = socket.bind(&SocketAddr::new(address, 0).into());
        bound.map_err(|error| match &self.0.from {
            BindAddresses::Addresses(_) => BindSourceError::Bind(address, error),
            BindAddresses::Client => BindSourceError::BindClient(address, error),
        })
    }

    /// Logs why connections do not come from the address that they should: once for each configuration of the pool.
    pub(super) fn log_bind_error(&self, server: &ServerAddr, error: &io::Error) {
        if !self.0.bind_error_was_logged.swap(true, Relaxed) {
            tracing::warn!(%server, error = %chain(error), "cannot connect as `bind_source` says");
        }
    }

    /// Logs that no address has a port left for a server: once for each configuration of the pool.
    fn log_no_ports(&self, server: &ServerAddr) {
        if !self.0.no_ports_was_logged.swap(true, Relaxed) {
            let remedy = match &self.0.from {
                BindAddresses::Addresses(_) => "add an address of this machine to `bind_source`",
                BindAddresses::Client => "the client has too many connections to this server",
            };
            tracing::warn!(%server, remedy, "all ports of `bind_source` are in use for connections to a server");
        }
    }
}

impl BindSourceError {
    /// Whether an error of connecting is a [`BindSourceError`].
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// The address of this turn, among those that fit the server.
fn address_at(turn: usize, addresses: &[IpAddr], server: SocketAddr) -> Option<IpAddr> {
    let turn = turn.checked_rem(fitting(addresses, server).count())?;
    fitting(addresses, server).nth(turn)
}

fn fitting(addresses: &[IpAddr], server: SocketAddr) -> impl Iterator<Item = IpAddr> {
    let addresses = addresses.iter().copied();
    addresses.filter(move |address| address.is_ipv4() == server.is_ipv4())
}

/// Lets a socket be bound to an address that is not of this machine.
fn set_transparent(socket: &Socket, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_the_servers_family_take_turns() {
        let addresses = ["10.0.0.1", "2001:db8::1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let source = BindSource::new(BindAddresses::Addresses(addresses.to_vec()));
        let (v4, v6): (SocketAddr, SocketAddr) = ("10.0.0.9:1".parse().unwrap(), "[2001:db8::9]:1".parse().unwrap());
        let next = |server| address_at(source.take_turn(server), &addresses, server).map(|address| address.to_string());
        let mut v4_sources = Vec::new();
        for _ in 0..4 {
            v4_sources.extend(next(v4));
            assert_eq!(
                next(v6).as_deref(),
                Some("2001:db8::1"),
                "an IPv6 connection takes no turn of the IPv4 addresses"
            );
        }
        assert_eq!(v4_sources, ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]);
        assert_eq!((source.count(v4), source.count(v6)), (2, 1));
        assert_eq!(address_at(0, &addresses[..1], v6), None);
    }

    #[test]
    fn the_attempts_of_a_connection_have_different_addresses_whatever_other_connections_do() {
        let addresses = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let source = BindSource::new(BindAddresses::Addresses(addresses.to_vec()));
        let server = "10.0.0.9:1".parse().unwrap();
        let first_turn = source.take_turn(server);
        let first = address_at(first_turn, &addresses, server);
        source.take_turn(server); // of another connection
        assert_ne!(address_at(first_turn + 1, &addresses, server), first);
    }
}
