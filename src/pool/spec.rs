//! The identity of a server, and its configuration in a pool.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::addr::ServerAddr;

/// A number that is unique among all servers of this process, past ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(u64);

impl ServerId {
    pub(super) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// The names and address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Its label in log, metrics and API: its name, else its address as written. `@` and the IP address follow if its
    /// host name was looked up.
    pub label: Arc<str>,
    /// Its input to `source-hash`: the IP address and port if there is a `resolved_from`. Otherwise the name or,
    /// without a name, the address as written.
    pub identity: Arc<str>,
    /// The address to connect to.
    pub address: ServerAddr,
    /// The host name and port, as written, that were resolved to this address; `None`: no host name was given.
    pub resolved_from: Option<Arc<str>>,
}

impl ServerSpec {
    /// A server at this address, with the label as its identity, too.
    #[cfg(test)]
    pub(crate) fn for_test(label: &str, address: std::net::SocketAddr) -> Self {
        Self {
            label: label.into(),
            identity: label.into(),
            address: ServerAddr::new(address),
            resolved_from: None,
        }
    }

    /// Its host name; `None`: an IP address or a Unix socket was given instead.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let (host, _) = self.resolved_from.as_deref()?.rsplit_once(':')?;
        Some(host)
    }
}

/// Its label, and its address unless that is its label.
impl fmt::Display for ServerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)?;
        let address = self.address.to_string();
        if *self.label == *address {
            return Ok(());
        }
        write!(f, " at {address}")
    }
}

/// The configuration of a server in a pool. A reload may give the same server another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberConfig {
    /// Its share of new sessions relative to the others, 0 to 256; with 0 it gets none.
    pub weight: u16,
    /// Its tier; 0 is the best. A tier is used only when no better one has a usable server.
    pub priority: u8,
    /// The most sessions that it may have at once; `None`: any number.
    pub sessions_max: Option<NonZeroU32>,
    /// Whether it gets no new sessions because the source that lists it lists it as draining, for example because it is
    /// about to end.
    pub is_draining: bool,
}

impl Default for MemberConfig {
    fn default() -> Self {
        Self {
            weight: 1,
            priority: 0,
            sessions_max: None,
            is_draining: false,
        }
    }
}
