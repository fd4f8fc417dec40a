//! The JSON bodies of the API's responses: written by the API, read by the commands. `docs/api.md` describes them. A
//! body from a process of an earlier version may lack fields; an `Option` that is missing is read like null.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::announced_bodies::AnnouncedBody;
use super::guard_bodies::GuardBody;
use super::pool_bodies::{AddedServerBody, DiscoveryBody, LeftOutBody, PoolTlsBody, QueueBody, ScaleBody};
use super::remote_bodies::RemoteBody;

/// `GET /api/v1/process`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessBody {
    /// The version of the program.
    pub version: String,
    /// Its PID, in its own namespace.
    pub pid: u32,
    /// When the process started; RFC 3339, like all times.
    pub started: String,
    /// The absolute path of its configuration file, also with `[remote]`; null: it runs without a file.
    pub configuration: Option<String>,
    /// Whether a token for write requests over TCP is configured.
    #[serde(default)]
    pub writable: bool,
}

/// `GET /api/v1/state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateBody {
    /// As in [`ProcessBody`].
    pub version: String,
    /// As in [`ProcessBody`].
    pub pid: u32,
    /// As in [`ProcessBody`].
    pub configuration: Option<String>,
    /// As in [`ProcessBody`].
    pub started: String,
    /// Seconds since `started`.
    pub uptime: u64,
    /// Whether the process is draining before it ends.
    pub draining: bool,
    /// When the configuration in force was loaded, to the second; a reload that fails does not change it.
    #[serde(default)]
    pub in_force_since: String,
    /// The result of the latest reload; null: there was none.
    pub last_reload: Option<ReloadBody>,
    /// The store that the configuration is from; null: there is no `[remote]`.
    #[serde(default)]
    pub remote: Option<RemoteBody>,
    /// The files of `state_dir` that cannot be written, each with the reason: a restart would forget what they should
    /// hold.
    #[serde(default)]
    pub unsaved: Vec<String>,
    /// Counts of the whole process.
    pub totals: TotalsBody,
    /// In the order of the configuration, then those that are no longer configured ([`GuardBody::absent`]).
    #[serde(default)]
    pub guards: Vec<GuardBody>,
    /// The TLS of the admin port; null: it has none.
    #[serde(default)]
    pub admin_tls: Option<ListenerTlsBody>,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerBody>,
    /// The source of announced routes; null: no listener accepts any.
    #[serde(default)]
    pub announced: Option<AnnouncedBody>,
    /// In the order of the configuration, then those of announced routes.
    pub pools: Vec<PoolBody>,
    /// Overrides of servers that no pool has now, sorted by name. They apply when the server is back.
    #[serde(default)]
    pub absent: Vec<AbsentServerBody>,
}

impl StateBody {
    /// All servers, each with its pool.
    pub fn servers(&self) -> impl Iterator<Item = (&PoolBody, &ServerBody)> {
        let pools = self.pools.iter();
        pools.flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)))
    }
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadBody {
    /// When it ended.
    pub at: String,
    /// What requested the reload.
    pub by: String,
    /// Whether the new configuration was applied; otherwise the previous one stays in force. The errors are left out,
    /// because clients without a token may read this body. `GET /api/v1/reload` returns them.
    pub done: bool,
}

/// Counts of the whole process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TotalsBody {
    /// Open sessions.
    pub sessions: usize,
    /// Sessions since the start, open ones included.
    pub sessions_so_far: u64,
    /// Servers of all pools.
    pub servers: usize,
    /// Servers that are up ([`ServerBody::up`]).
    pub servers_up: usize,
    /// Servers that are usable ([`ServerBody::usable`]).
    #[serde(default)]
    pub servers_usable: usize,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerBody {
    /// Its name.
    pub name: String,
    /// The addresses that it is bound to, with their real ports.
    pub addresses: Vec<String>,
    /// Open sessions.
    pub sessions: usize,
    /// The most sessions at a time; null: only the limit of the process applies.
    pub max_connections: Option<usize>,
    /// The guards of all its clients, in the order in which they are asked.
    #[serde(default)]
    pub guards: Vec<String>,
    /// The pool for clients that no route takes; null: they are refused, or redirected.
    pub pool: Option<String>,
    /// The TLS that ends at it; null: all TLS is passed on.
    pub tls: Option<ListenerTlsBody>,
    /// The listener to which HTTP requests are redirected; null: it does not redirect.
    #[serde(default)]
    pub redirect: Option<String>,
    /// In the order of the configuration, then those that are announced; the first 1,000.
    pub routes: Vec<RouteBody>,
    /// The number of routes left out of `routes`.
    pub more_routes: usize,
}

/// The TLS that ends at a listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerTlsBody {
    /// The number of its certificates.
    pub certificates: usize,
    /// The first name in the certificate that expires first; null: the certificate has no name.
    pub expires_first: Option<String>,
    /// When that certificate expires.
    pub expires: String,
    /// The certificates that ACME has not issued yet, each by its first name: self-signed ones are in use instead.
    #[serde(default)]
    pub self_signed: Vec<String>,
    /// Problems of what is in force: certificates and authorities that have expired, failed orders by ACME, revocation
    /// lists that are out of date or missing. At most the first 20, and then how many more there are.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Problems of files that were changed. Their earlier contents are still in force.
    pub broken: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteBody {
    /// Its name.
    pub name: String,
    /// The first 16 of its name patterns.
    pub sni: Vec<String>,
    /// The first 16 of its protocols.
    pub alpn: Vec<String>,
    /// The first 16 of its networks.
    pub from: Vec<String>,
    /// The first 16 of its databases.
    pub database: Vec<String>,
    /// The first 16 of its users.
    pub user: Vec<String>,
    /// Its guards.
    #[serde(default)]
    pub guards: Vec<String>,
    /// The number of entries left out of `sni`, `alpn`, `from`, `database` and `user`.
    pub more: usize,
    /// Its pool; null: it refuses.
    pub pool: Option<String>,
    /// What happens to the TLS of its clients: `pass` or `terminate`.
    pub tls: String,
    /// The open sessions that it has taken.
    #[serde(default)]
    pub sessions: usize,
    /// The sessions that it has taken or refused since the start, or since a reload or an announcement added it.
    #[serde(default)]
    pub sessions_so_far: u64,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolBody {
    /// Its name.
    pub name: String,
    /// Its balancing policy.
    pub balance: String,
    /// The priority of the best tier with a server that is up, usable and not ejected; null: there is no such server.
    pub best_tier: Option<u8>,
    /// Whether so few servers of a tier are up that servers of this tier are used although they are down or ejected.
    pub panic: bool,
    /// Whether a server of it gets new sessions, or is started for them. A primary that gets them only as the fallback
    /// does not count.
    #[serde(default = "default_true")]
    pub usable: bool,
    /// Its configured fallback; null: none.
    #[serde(default)]
    pub fallback: Option<String>,
    /// The pool (with `fallback = "primary"`, the primary) that gets new sessions while this pool has no usable server;
    /// null: none does.
    #[serde(default)]
    pub served_by: Option<String>,
    /// The server that is its primary; null: there is none, or roles do not matter.
    #[serde(default)]
    pub primary: Option<String>,
    /// The servers that call themselves primary at the same time, even if it is only one. Empty with `single = false`,
    /// or if neither `role` nor `max_lag` is set.
    #[serde(default)]
    pub primaries: Vec<String>,
    /// The TLS that its servers get; null: they get what clients send.
    #[serde(default)]
    pub tls: Option<PoolTlsBody>,
    /// The queue of clients that wait for a server with room; null: there is none.
    #[serde(default)]
    pub queue: Option<QueueBody>,
    /// Where its servers are listed; null: there is no `discover`.
    #[serde(default)]
    pub discovery: Option<DiscoveryBody>,
    /// Its clones; null: it does not grow or shrink.
    #[serde(default)]
    pub scale: Option<ScaleBody>,
    /// The servers that operators have added.
    #[serde(default)]
    pub added: Vec<AddedServerBody>,
    /// The servers that are left out because they are our own listeners.
    #[serde(default)]
    pub left_out: Vec<LeftOutBody>,
    /// First those of the configuration, then clones or those that `discover` lists, each in their order; last those
    /// that operators added.
    pub servers: Vec<ServerBody>,
    /// Host names of its servers that have not been resolved yet.
    #[serde(default)]
    pub unresolved: Vec<String>,
}

impl PoolBody {
    /// The open sessions on its servers. Servers at the same address share a count, which is added once.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        let by_address = self.servers.iter().map(|server| (&server.address, server.sessions));
        by_address.collect::<HashMap<_, _>>().into_values().sum()
    }

    /// Where a server comes from, in a word; `None`: from the configuration.
    #[must_use]
    pub fn origin_of(&self, server: &ServerBody) -> Option<&'static str> {
        let is_clone = |scale: &ScaleBody| scale.clones.iter().any(|clone| clone.name == server.name);
        if self.scale.as_ref().is_some_and(is_clone) {
            return Some("clone");
        }
        if self.added.iter().any(|added| added.name == server.name) {
            return Some("added");
        }
        self.discovery.as_ref().map(|_| "discovered") // a pool has `servers` or `discover`, not both
    }
}

/// The value for a process of an earlier version, which leaves the field out.
fn default_true() -> bool {
    true
}

/// A server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerBody {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its tier.
    pub priority: u8,
    /// Its weight in force.
    pub weight: u16,
    /// Whether it is up: it answers its checks, or has no checks; its role does not matter.
    #[serde(default)]
    pub up: bool,
    /// Whether it gets new sessions, if no better tier is usable.
    #[serde(default)]
    pub usable: bool,
    /// The result of its checks: `up`, `down`, `wrong role`, `unchecked`, or `check refused`.
    pub health: String,
    /// The error of its latest check; null: none.
    pub reason: Option<String>,
    /// When `health` changed last, or when refused checks brought the server up.
    pub since: String,
    /// Whether it is not used for a while, because connects failed, because sessions ended before any byte came from
    /// it, or because it said that it takes no sessions.
    pub ejected: bool,
    /// `enabled`, `draining`, `disabled` or `awaiting failback`.
    #[serde(rename = "use")]
    pub usage: String,
    /// The time over which its sessions are cut while it is not enabled; null: they are not.
    pub close_over: Option<String>,
    /// Whether `weight` is an override.
    pub weight_is_set: bool,
    /// Who set the latest override; null: there was none.
    pub set_by: Option<String>,
    /// When the latest override was set.
    pub set_at: Option<String>,
    /// Open sessions that the server has not ended, on all servers of the pool at this address. On a limited server
    /// also those that acequia has ended and the server has not.
    pub sessions: u32,
    /// The most sessions that it may have at once; null: any number.
    #[serde(default)]
    pub max_sessions: Option<u32>,
    /// Sessions that have connected to it so far, open ones included. A server that left its pool and came back may
    /// begin with 0 again.
    pub sessions_so_far: u64,
}

/// The overrides of a server that no pool has now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AbsentServerBody {
    /// Its pool.
    pub pool: String,
    /// Its name in that pool.
    pub name: String,
    /// As in [`ServerBody`].
    #[serde(rename = "use")]
    pub usage: String,
    /// As in [`ServerBody`].
    pub close_over: Option<String>,
    /// The weight that was set; null: the configured one.
    pub weight: Option<u16>,
    /// As in [`ServerBody`].
    pub set_by: Option<String>,
    /// As in [`ServerBody`].
    pub set_at: Option<String>,
}

/// `POST /api/v1/servers/{pool}/{server}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OverrideBody {
    /// A server of the pool.
    Present(Box<ServerBody>),
    /// A server that the pool does not have now.
    Absent(AbsentServerBody),
}

/// Every response with a status of 400 or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: String,
}
