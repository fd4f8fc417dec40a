//! The identity of a server, and its configuration in a pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::addr::ServerAddr;

/// A number no other server of this process ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(u64);

impl ServerId {
    pub(super) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// Who a server is; all that is known of it before it has been used.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// What log, metrics and API call it: its name, else its address as written, else `host:port@address`.
    pub label: Arc<str>,
    /// What source-hash knows it by: its name, else its address as written; never its position.
    pub identity: Arc<str>,
    /// Where it answers.
    pub address: ServerAddr,
    /// The name that was resolved to this address, as written; `None`: the address itself is what is written.
    pub resolved_from: Option<Arc<str>>,
}

/// What the configuration says of a server in a pool. The next plan may say otherwise of the same server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberConfig {
    /// Its share of new sessions relative to the others, 0 to 256; 0 takes no new session.
    pub weight: u16,
    /// Its tier, 0 the best: a worse one is used only when every better one has no usable server.
    pub priority: u8,
}

impl Default for MemberConfig {
    fn default() -> Self {
        Self { weight: 1, priority: 0 }
    }
}
