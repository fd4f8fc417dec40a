//! From whom a listener accepts a PROXY header.

use std::net::IpAddr;

use crate::guard::NetworkSet;

/// `accept_proxy` of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct AcceptProxy {
    /// Peers that are trusted to say who their client is.
    pub from: NetworkSet,
    /// Whether peers on the Unix sockets of the listener are trusted, too.
    pub trusts_unix: bool,
    /// Whether every connection of a trusted peer must begin with a header.
    pub is_required: bool,
    /// Whether all other peers are refused. Otherwise they are clients themselves.
    pub refuses_others: bool,
}

/// Who the client of a connection is, as `accept_proxy` decides it from the address of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientOf {
    /// The peer itself. A header that it sends is data.
    Peer(IpAddr),
    /// The client that the peer names in its PROXY header; `None`: its address is not known.
    Named(Option<IpAddr>),
    /// Nobody: the peer is refused.
    Refused,
}

impl AcceptProxy {
    /// Whether a peer with this address is trusted; `None`: it is on a Unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.trusts_unix, |peer| self.from.contains(peer))
    }

    /// Who the client of a connection would be, for questions about routes. `accept`: the setting of the listener, if
    /// it has one. `named`: the client that a PROXY header of the peer would name; `None`: not known.
    #[must_use]
    pub fn client_of(accept: Option<&Self>, peer: IpAddr, named: Option<IpAddr>) -> ClientOf {
        match accept {
            Some(accept) if accept.trusts(Some(peer)) => ClientOf::Named(named),
            Some(accept) if accept.refuses_others => ClientOf::Refused,
            _ => ClientOf::Peer(peer),
        }
    }
}
