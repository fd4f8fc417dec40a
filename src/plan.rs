//! The configuration as plain values. A plan is valid by construction, so nothing later checks it again. State that
//! changes at run time is in [`crate::live`].

mod accept_proxy;
mod discover;
mod fallback;
mod files;
mod server_entry;
mod listed;
mod pools;
mod protocol;
mod announcement;
mod announced;
mod remote;
mod retire;
mod route_question;
mod severing;
mod changed;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::account::access_log::{AccessTarget, LogFormat};
use crate::acme::AcmePlan;
use crate::addr::{IpFamily, ListenAddr, ServerAddr};
use crate::check::{Check, Service};
use crate::dial::DialOptions;
use crate::guard::{GuardId, GuardRules};
use crate::pool::{MemberConfig, Policy, PoolRules, RoleRequirement, Thresholds};
use crate::redirect::Redirect;
use crate::relay::RelayLimits;
use crate::route::RouteTable;
use crate::scale::{CloneKind, ScalePlan};
use crate::sniff::SniffLimits;
use crate::socket::SocketOptions;
use crate::tls::{ListenerTlsPlan, PoolTlsPlan};
pub use accept_proxy::{AcceptProxy, ClientOf};
pub use announced::AnnouncePlan;
pub use announcement::{Announcement, AnnouncementRefusal, KeptAnnouncement, RefusedAnnouncement};
pub use discover::{
    DiscoverPlan, DiscoverSource, DnsQuery, DnsSourcePlan, DockerSourcePlan, HttpSourcePlan, KubernetesPlan, Lister,
    ServicePort, ServiceSourcePlan,
};
pub use fallback::Fallback;
pub use listed::{LISTED_MAX, ListedEntries, ListedServer, WEIGHT_MAX, listed_entries};
pub use pools::{PoolId, PoolPlans};
pub use protocol::{Protocol, UnplacedCancel};
pub use remote::{RemotePlan, RemoteText, RemoteTexts, RemoteTrust, TextVersion, has_dot_dot};
pub use retire::RetirePlan;
pub use route_question::RouteQuestion;
pub use server_entry::{ServerEntry, names_of};
pub use severing::{Failback, Sever, SeveringPlan};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The process.
    pub runtime: RuntimePlan,
    /// `state_dir` of `[runtime]`: a directory for state that outlives a restart; `None`: no state is kept.
    pub state_dir: Option<PathBuf>,
    /// The admin port and the API.
    pub admin: AdminPlan,
    /// The logs.
    pub log: LogPlan,
    /// The store that has the rest of the configuration; `None`: all of it is in the file.
    pub remote: Option<RemotePlan>,
    /// The accounts with ACME servers, in the order of the file.
    pub acme: Vec<AcmePlan>,
    /// In the order of the file; a [`GuardId`] is an index here.
    pub guards: Vec<Arc<GuardPlan>>,
    /// In the order of the file. Empty only while the rest of the configuration is awaited.
    pub listeners: Vec<Arc<ListenerPlan>>,
    /// In the order of the file; also found by name.
    pub pools: PoolPlans,
    /// The number of announced routes in `listeners`, for each listener that accepts announcements.
    pub announced_route_counts: Vec<(Arc<str>, usize)>,
    /// The announcements that have no effect.
    pub refused_announcements: Vec<RefusedAnnouncement>,
}

/// `[runtime]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimePlan {
    /// How many threads carry traffic; `None`: one for each core that this process may use.
    pub workers: Option<usize>,
    /// The most sessions of the whole process; `None`: what the descriptor limit allows.
    pub max_connections: Option<usize>,
    /// The most bytes that are buffered for all clients that have no server yet.
    pub hello_memory_bytes: usize,
    /// How long sessions may go on when the process ends.
    pub drain_timeout: Duration,
    /// How long `/ready` fails before the drain begins.
    pub drain_delay: Duration,
    /// Whether a change of the file causes a reload.
    pub watch: bool,
}

/// `[admin]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminPlan {
    /// The TCP address of `/metrics`, `/live`, `/ready` and the API; `None`: there is none.
    pub bind: Option<ListenAddr>,
    /// The host names that requests over TCP may have in `Host`, in lower case. IP literals and `localhost` are always
    /// accepted.
    pub hosts: Vec<Box<str>>,
    /// The file with the bearer token for the API requests over TCP that need one, such as writes; `None`: these
    /// requests are rejected. It is read when it is needed, so that it may be changed at any time.
    pub token_file: Option<PathBuf>,
    /// The TLS of the admin port; `None`: it speaks plain HTTP.
    pub tls: Option<ListenerTlsPlan>,
    /// The Unix socket of the API.
    pub socket: AdminSocket,
}

/// `socket` of `[admin]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminSocket {
    /// At the default path; none if that cannot be used, but an error if another process listens there.
    #[default]
    Default,
    /// At this path; an error if that is not possible.
    Path(PathBuf),
    /// No socket.
    Off,
}

impl AdminSocket {
    /// The default path if `$XDG_RUNTIME_DIR` is not set.
    pub const SYSTEM_PATH: &str = "/run/acequia/admin.sock";
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// The format of the diagnostic log and of the access log.
    pub format: LogFormat,
    /// The level of the diagnostic log.
    pub level: tracing::Level,
    /// Where the access log goes.
    pub access: AccessTarget,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct ListenerPlan {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// At least one.
    pub bind: Vec<ListenAddr>,
    /// The permissions of the Unix sockets in `bind`, as chmod(2) takes them.
    pub unix_mode: u32,
    /// The backlog of each listening socket.
    pub backlog: u32,
    /// The most sessions of this listener; `None`: only the bound of the process holds.
    pub max_connections: Option<usize>,
    /// From whom a PROXY header is accepted; `None`: every peer is a client itself.
    pub accept_proxy: Option<AcceptProxy>,
    /// The guards of every client. They are asked before anything is read, except for a PROXY header.
    pub guards: Vec<GuardId>,
    /// The protocol of its clients.
    pub protocol: Protocol,
    /// Where its clients are redirected to; `None`: they are served.
    pub redirect: Option<Redirect>,
    /// Bounds on the ClientHello and on what a client of PostgreSQL sends first. The time limit also applies to a PROXY
    /// header and to the rest of the TLS handshake. If the protocol is not PostgreSQL, a ClientHello is read only if
    /// [`RouteTable::needs_hello`] is true.
    pub sniff: SniffLimits,
    /// Its routes, to pools of the same plan.
    pub routes: RouteTable<PoolId>,
    /// Who may announce further routes; `None`: nobody.
    pub announce: Option<AnnouncePlan>,
    /// The TLS that is terminated here; `None`: all TLS is passed on.
    pub tls: Option<ListenerTlsPlan>,
    /// Bounds on the relay.
    pub relay: RelayLimits,
    /// The options of the clients' sockets.
    pub socket: SocketOptions,
}

/// A guard.
#[derive(Debug, PartialEq)]
pub struct GuardPlan {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its rules.
    pub rules: GuardRules,
}

/// A pool: its servers and how they are reached and watched.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPlan {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// How a server is chosen.
    pub rules: PoolRules,
    /// How a server is connected to.
    pub dial: DialOptions,
    /// How servers are watched.
    pub health: HealthPlan,
    /// Which sessions are closed when the state of a server changes.
    pub severing: SeveringPlan,
    /// The rules that end old and excess sessions.
    pub retiring: RetirePlan,
    /// Whether a server that went down is used again once its checks pass.
    pub failback: Failback,
    /// The fallback, used while this pool has no usable server.
    pub fallback: Option<Fallback>,
    /// How it grows and shrinks; `None`: it starts no servers.
    pub scale: Option<Arc<ScalePlan>>,
    /// The servers as configured; the names among them are resolved at run time.
    pub entries: Arc<[ServerEntry]>,
    /// The settings of a server that its own entry does not set.
    pub defaults: MemberConfig,
    /// The source that lists further servers; `None`: there is none.
    pub discover: Option<DiscoverPlan>,
    /// How often names are resolved.
    pub resolve_interval: Duration,
    /// The address family that names are resolved to.
    pub resolve: IpFamily,
    /// Whether the servers accept a ClientHello without an SSLRequest of PostgreSQL before it.
    pub direct_tls: bool,
    /// The TLS between acequia and the servers; `None`: acequia adds none.
    pub tls: Option<PoolTlsPlan>,
}

impl ListenerPlan {
    /// The first of its addresses that is a Unix socket.
    #[must_use]
    pub fn unix_address(&self) -> Option<ListenAddr> {
        self.bind.iter().copied().find(|address| address.unix().is_some())
    }
}

impl Plan {
    /// The names of these guards, which are guards of this plan.
    pub fn guard_names(&self, guards: &[GuardId]) -> impl Iterator<Item = &Arc<str>> {
        guards.iter().map(|id| &self.guards[id.0].name)
    }

    /// What acequia waits for before it can serve anything; `None`: nothing.
    #[must_use]
    pub fn why_not_ready(&self) -> Option<String> {
        let remote = self.remote.as_ref().filter(|_| self.listeners.is_empty())?;
        Some(format!("the configuration: {}", remote.location()))
    }

    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Arc<PoolPlan>> {
        self.pools.named(name)
    }
}

/// How a pool's servers are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPlan {
    /// The check; `None`: no checks, every server counts as up.
    pub check: Option<Arc<dyn Check>>,
    /// Time between the starts of two checks of one server, before jitter.
    pub interval: Duration,
    /// As `interval`, while the server is down.
    pub interval_down: Duration,
    /// The time limit of one check.
    pub timeout: Duration,
    /// What is required of the role of a server. A required role and a largest lag need a check that learns roles.
    pub required: RoleRequirement,
    /// How many results in a row change the state of a server.
    pub thresholds: Thresholds,
    /// How long the last known role of a server counts while its checks are refused.
    pub role_trust: Duration,
    /// The IP address that checks connect to; `None`: the server's own.
    pub address: Option<ServerAddr>,
    /// The port that checks connect to; `None`: the server's own.
    pub port: Option<u16>,
    /// How many checks of the pool may be under way at once; at least one. The largest value of any pool also limits
    /// the checks of all pools together.
    pub concurrency: usize,
}

impl HealthPlan {
    /// The service that the servers provide, if the check is for one service only.
    #[must_use]
    pub fn service(&self) -> Option<&'static Service> {
        self.check.as_ref()?.kind().service.as_ref()
    }

    /// Whether a server can be unusable because of its role or lag although it answers.
    #[must_use]
    pub fn role_matters(&self) -> bool {
        let tells = |check: &Arc<dyn Check>| check.tells_wrong_role();
        self.required.is_set() || self.check.as_ref().is_some_and(tells)
    }
}

impl PoolPlan {
    /// Whether the servers are checked at all.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.health.check.is_some()
    }

    /// The entries whose host name has to be looked up ([`names_of`]), each with that name and its port.
    pub fn names(&self) -> impl Iterator<Item = (&ServerEntry, &str, u16)> {
        names_of(&self.entries)
    }

    /// The lister of further servers at run time; `None`: there is none.
    #[must_use]
    pub fn lister(&self) -> Option<Lister> {
        let source = self.discover.as_ref().map(|_| Lister::Source);
        source.or_else(|| self.scale.as_ref().map(|_| Lister::Clones))
    }

    /// Whether its clones are containers.
    #[must_use]
    pub fn has_containers(&self) -> bool {
        let is_container = |scale: &Arc<ScalePlan>| matches!(scale.kind, CloneKind::Docker(_));
        self.scale.as_ref().is_some_and(is_container)
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.rules.policy
    }
}
