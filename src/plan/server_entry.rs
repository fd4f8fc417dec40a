//! One server of a pool, or the name of several, as it is configured or listed.

use std::sync::Arc;

use crate::addr::{ServerAddr, ServerLocation};
use crate::pool::{MemberConfig, ServerSpec};

/// One entry of a pool's `servers`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerEntry {
    /// `name`, if it has one.
    pub name: Option<Arc<str>>,
    /// Its address, or its host name and port, as configured or listed.
    pub written: Arc<str>,
    /// `written`, parsed.
    pub location: ServerLocation,
    /// Its weight, its priority, the most sessions that it may have, and whether it is draining.
    pub member_config: MemberConfig,
}

impl ServerEntry {
    /// The server of an entry with a fixed address; `None` for a host name that has to be looked up.
    #[must_use]
    pub fn fixed(&self) -> Option<ServerSpec> {
        let label = Arc::clone(self.label());
        match &self.location {
            ServerLocation::Address(address) => Some(ServerSpec {
                identity: Arc::clone(&label),
                label,
                address: *address,
                resolved_from: None,
            }),
            // The same identity as in `Self::resolved`: if `host:port@ip` becomes `host:port` in an entry without a
            // `name`, the server at this address stays the same.
            ServerLocation::Resolved { host_and_port, address } => Some(ServerSpec {
                identity: address.to_string().into(),
                label,
                address: *address,
                resolved_from: Some((**host_and_port).into()),
            }),
            ServerLocation::Name { .. } => None,
        }
    }

    /// Its address; `None` for a host name that has to be looked up.
    #[must_use]
    pub fn fixed_address(&self) -> Option<ServerAddr> {
        match &self.location {
            ServerLocation::Address(address) | ServerLocation::Resolved { address, .. } => Some(*address),
            ServerLocation::Name { .. } => None,
        }
    }

    /// For an entry with a host name: the server at one of the addresses that the host name resolves to.
    #[must_use]
    pub fn resolved(&self, address: ServerAddr) -> ServerSpec {
        ServerSpec {
            label: match address.ip() {
                Some(ip) => format!("{}@{ip}", self.label()).into(),
                None => Arc::clone(self.label()), // names resolve to IP addresses
            },
            identity: address.to_string().into(),
            address,
            resolved_from: Some(Arc::clone(&self.written)),
        }
    }

    /// Whether it is a Unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self.location, ServerLocation::Address(address) if address.unix().is_some())
    }

    /// The label of its server in log, metrics and API; for a host name, the prefix of the labels of its servers.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        self.name.as_ref().unwrap_or(&self.written)
    }
}

/// The entries whose host name has to be looked up, each with that name and its port.
pub fn names_of(entries: &[ServerEntry]) -> impl Iterator<Item = (&ServerEntry, &str, u16)> {
    entries.iter().filter_map(|entry| match &entry.location {
        ServerLocation::Name { host, port } => Some((entry, &**host, *port)),
        ServerLocation::Address(_) | ServerLocation::Resolved { .. } => None,
    })
}
