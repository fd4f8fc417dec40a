//! The immutable picture of what runs. What is in it cannot be wrong, so nothing later checks it again.

use std::sync::Arc;
use std::time::Duration;

use crate::account::access_log::{AccessTarget, LogFormat};
use crate::addr::{ListenAddr, ServerPlace};
use crate::dial::DialLimits;
use crate::pool::health::Thresholds;
use crate::pool::{Policy, Pool, ServerSpec};
use crate::relay::RelayLimits;
use crate::route::RouteTable;
use crate::sniff::SniffLimits;
use crate::socket::SocketOptions;

/// All that is configured.
#[derive(Debug)]
pub struct Plan {
    /// The process.
    pub runtime: RuntimePlan,
    /// Where `/metrics` and its neighbours are; `None`: nowhere.
    pub admin: Option<ListenAddr>,
    /// What is written where.
    pub log: LogPlan,
    /// At least one, in the order written.
    pub listeners: Vec<Arc<ListenerPlan>>,
    /// In the order written.
    pub pools: Vec<Arc<PoolPlan>>,
}

/// `[runtime]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimePlan {
    /// Threads that carry traffic; `None`: as many as this process may use cores.
    pub workers: Option<usize>,
    /// Sessions of the whole process; `None`: what the descriptor limit allows.
    pub max_connections: Option<usize>,
    /// How long sessions may go on at the end.
    pub drain_timeout: Duration,
    /// How long `/ready` says no before that.
    pub drain_delay: Duration,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// Of both logs.
    pub format: LogFormat,
    /// Of the diagnostic log.
    pub level: tracing::Level,
    /// Where the access log goes.
    pub access: AccessTarget,
}

/// A listener.
#[derive(Debug)]
pub struct ListenerPlan {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// At least one.
    pub bind: Vec<ListenAddr>,
    /// Of the listening socket.
    pub backlog: u32,
    /// Sessions of this listener; `None`: only the bound of the process.
    pub max_connections: Option<usize>,
    /// Bounds on the ClientHello; read only when a route needs it ([`RouteTable::needs_hello`]).
    pub sniff: SniffLimits,
    /// Where its clients go.
    pub routes: RouteTable<Arc<PoolPlan>>,
    /// Bounds on the relay.
    pub relay: RelayLimits,
    /// Of the clients' sockets.
    pub socket: SocketOptions,
}

/// A pool: its servers and how they are reached and watched.
#[derive(Debug)]
pub struct PoolPlan {
    /// The servers and the choice among them.
    pub pool: Pool,
    /// How a server is reached.
    pub dial: DialLimits,
    /// How servers are watched.
    pub health: HealthPlan,
    /// The servers as written; names among them are resolved while we run.
    pub entries: Vec<ServerEntry>,
    /// How often names are resolved.
    pub resolve_interval: Duration,
}

/// One entry of a pool's `servers`.
#[derive(Clone, Debug)]
pub struct ServerEntry {
    /// `name`, if it has one.
    pub name: Option<Arc<str>>,
    /// Its address as written.
    pub written: Arc<str>,
    /// Where it is.
    pub place: ServerPlace,
    /// 0 to 256.
    pub weight: u16,
}

impl ServerEntry {
    /// The server of an entry that needs no resolver.
    #[must_use]
    pub fn fixed(&self) -> Option<ServerSpec> {
        let ServerPlace::Address(address) = self.place else {
            return None;
        };
        let label = self.name.as_ref().unwrap_or(&self.written);
        Some(ServerSpec {
            label: Arc::clone(label),
            identity: Arc::clone(label),
            address,
            weight: self.weight,
        })
    }
}

/// How a pool's servers are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPlan {
    /// What a check does; `None`: no checks, every server counts as up.
    pub check: Option<CheckKind>,
    /// Between the starts of two checks of one server, before jitter.
    pub interval: Duration,
    /// One check.
    pub timeout: Duration,
    /// What changes a state.
    pub thresholds: Thresholds,
}

/// The kinds of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// The server's kernel completes a handshake.
    Tcp,
}

impl PoolPlan {
    /// Whether the servers are checked at all.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.health.check.is_some()
    }

    /// Whether a resolver must say where some of the servers are.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.entries.iter().any(|entry| entry.fixed().is_none())
    }

    /// The policy, for those who only ask about it.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.pool.policy()
    }
}
