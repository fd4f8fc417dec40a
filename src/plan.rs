//! The immutable picture of what runs. What is in it cannot be wrong, so nothing later checks it again.

mod changed;
mod files;
mod pools;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::account::access_log::{AccessTarget, LogFormat};
use crate::addr::{IpFamily, ListenAddr, ServerAddr, ServerLocation};
use crate::check::{Check, Service};
use crate::dial::DialLimits;
use crate::pool::{Member, MemberConfig, Policy, Pool, ServerRegistry, ServerSpec, Thresholds};
use crate::relay::RelayLimits;
use crate::route::RouteTable;
use crate::sniff::SniffLimits;
use crate::socket::SocketOptions;
pub use pools::PoolPlans;

/// All that is configured.
#[derive(Debug)]
pub struct Plan {
    /// The process.
    pub runtime: RuntimePlan,
    /// Where and by whom we are watched and steered.
    pub admin: AdminPlan,
    /// What is written where.
    pub log: LogPlan,
    /// At least one, in the order written.
    pub listeners: Vec<Arc<ListenerPlan>>,
    /// In the order written, and by name.
    pub pools: PoolPlans,
}

/// `[runtime]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimePlan {
    /// Threads that carry traffic; `None`: as many as this process may use cores.
    pub workers: Option<usize>,
    /// Sessions of the whole process; `None`: what the descriptor limit allows.
    pub max_connections: Option<usize>,
    /// Bytes that may be held of all clients that have no server yet.
    pub hello_bytes_max: usize,
    /// How long sessions may go on at the end.
    pub drain_timeout: Duration,
    /// How long `/ready` says no before that.
    pub drain_delay: Duration,
    /// Whether a change of the file is a reload.
    pub watch: bool,
}

/// `[admin]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminPlan {
    /// The TCP port of `/metrics`, its neighbours and the API; `None`: there is none.
    pub bind: Option<ListenAddr>,
    /// Names the API answers to over TCP (`Host`), in lower case, besides IP literals and `localhost`.
    pub hosts: Vec<Box<str>>,
    /// Holds the bearer token for writes over TCP; `None`: there are none. It is read when it is needed, so that it may
    /// be changed at any time.
    pub token_file: Option<PathBuf>,
    /// The Unix socket of the API.
    pub socket: AdminSocket,
}

/// `socket` of `[admin]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminSocket {
    /// In its usual place, if that can be had.
    #[default]
    Usual,
    /// Here, or we do not run.
    At(PathBuf),
    /// Nowhere.
    Off,
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
    /// What becomes of sessions when servers come and go.
    pub severing: SeveringPlan,
    /// The servers as written; names among them are resolved while we run.
    pub entries: Vec<ServerEntry>,
    /// How often names are resolved.
    pub resolve_interval: Duration,
    /// To which addresses.
    pub resolve: IpFamily,
}

/// One entry of a pool's `servers`.
#[derive(Debug)]
pub struct ServerEntry {
    /// `name`, if it has one.
    pub name: Option<Arc<str>>,
    /// Its address as written.
    pub written: Arc<str>,
    /// Where it is.
    pub location: ServerLocation,
    /// How much it gets, and when.
    pub member_config: MemberConfig,
    /// Where its name was last said to be; nothing, as long as that is not known. Besides the pool's servers, which
    /// follow it, all of a plan that changes.
    pub addresses: ArcSwap<Vec<ServerAddr>>,
}

impl Plan {
    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Arc<PoolPlan>> {
        self.pools.named(name)
    }
}

impl ServerEntry {
    /// The server of an entry that needs no resolver.
    #[must_use]
    pub fn fixed(&self) -> Option<ServerSpec> {
        let ServerLocation::Address(address) = self.location else {
            return None;
        };
        Some(ServerSpec {
            label: Arc::clone(self.label()),
            identity: Arc::clone(self.label()),
            address,
            resolved_from: None,
        })
    }

    /// Its servers, so far as it is known where they are.
    fn specs(&self) -> Vec<ServerSpec> {
        if let Some(fixed) = self.fixed() {
            return vec![fixed];
        }
        let resolved = |address: &ServerAddr| ServerSpec {
            label: format!("{}@{}", self.label(), address.ip()).into(),
            identity: address.to_string().into(),
            address: *address,
            resolved_from: Some(Arc::clone(&self.written)),
        };
        self.addresses.load().iter().map(resolved).collect()
    }

    /// What log, metrics and API call it, or begin with.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        self.name.as_ref().unwrap_or(&self.written)
    }
}

/// What becomes of sessions when servers come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeveringPlan {
    /// Sessions of a server that goes down.
    pub on_down: Sever,
    /// Sessions on a worse tier, when a better one is back.
    pub on_recover: Sever,
    /// Over what time they are cut.
    pub close_over: Duration,
}

/// What to do with sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sever {
    /// They go on.
    #[default]
    Keep,
    /// They are cut, paced.
    Close,
}

/// How a pool's servers are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPlan {
    /// The check; `None`: no checks, every server counts as up.
    pub check: Option<Arc<dyn Check>>,
    /// Time between the starts of two checks of one server, before jitter.
    pub interval: Duration,
    /// The same while the server is down.
    pub interval_down: Duration,
    /// The time limit of one check.
    pub timeout: Duration,
    /// How many results in a row change the state of a server.
    pub thresholds: Thresholds,
    /// The IP address that checks connect to; `None`: the server's own.
    pub address: Option<ServerAddr>,
    /// The port that checks connect to; `None`: the server's own.
    pub port: Option<u16>,
    /// How many checks of the pool may be under way at once; at least one. For all pools together it is the largest of these.
    pub concurrency: usize,
}

impl HealthPlan {
    /// The service that the servers provide, if the check is for one service only.
    #[must_use]
    pub fn service(&self) -> Option<&'static Service> {
        self.check.as_ref()?.kind().service.as_ref()
    }
}

impl PoolPlan {
    /// Whether the servers are checked at all.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.health.check.is_some()
    }

    /// The entries for a resolver to say where they are, each with its name and port.
    pub fn names(&self) -> impl Iterator<Item = (&ServerEntry, &str, u16)> {
        self.entries.iter().filter_map(|entry| match &entry.location {
            ServerLocation::Name { host, port } => Some((entry, &**host, *port)),
            ServerLocation::Address(_) => None,
        })
    }

    /// Whether there are such entries.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.names().next().is_some()
    }

    /// Whether an entry's name is this, as it is written.
    #[must_use]
    pub fn has_name(&self, written: &str) -> bool {
        self.names().any(|(entry, ..)| *entry.written == *written)
    }

    /// Gives the pool the servers of its entries, so far as it is known where they are, and has them checked as this
    /// plan wants it; one that is there already is that one.
    pub fn settle(&self, roster: &ServerRegistry) {
        self.prepare(roster);
        self.begin_checks();
    }

    /// Has the servers checked or not, as this plan wants it.
    pub fn begin_checks(&self) {
        let is_checked = self.is_checked();
        for server in self.pool.servers().iter() {
            server.set_checked(is_checked);
        }
    }

    /// Gives the pool the servers of its entries, and changes none that is there already.
    pub fn prepare(&self, roster: &ServerRegistry) {
        let mut seen = HashSet::new();
        let mut servers = Vec::new();
        for entry in &self.entries {
            for spec in entry.specs() {
                // One address reached by two names of a pool is one server: it has one load and one health.
                if seen.insert((Arc::clone(&spec.identity), spec.address)) {
                    let server = roster.get_or_create(self.pool.name(), spec, self.is_checked());
                    servers.push(Member::new(server, entry.member_config));
                }
            }
        }
        self.pool.replace_servers(servers);
    }

    /// The policy, for those who only ask about it.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.pool.policy()
    }
}
