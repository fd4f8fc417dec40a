//! The JSON bodies about parts of a pool, see `docs/api.md`.

use serde::{Deserialize, Serialize};

/// The source of a pool's servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiscoveryBody {
    /// Its kind, and where it is.
    pub source: String,
    /// Whether the latest attempt to read it gave a usable answer; null: no attempt has ended yet.
    pub up: Option<bool>,
    /// When it last gave a usable answer; null: never since the start.
    pub last_success: Option<String>,
    /// Why the latest attempt gave no usable answer; null: it gave one, or no attempt has ended yet.
    pub error: Option<String>,
    /// The problems in parts of its latest usable answer; null: none.
    #[serde(default)]
    pub warning: Option<String>,
}

/// A server that an operator has added to a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddedServerBody {
    /// Its pool.
    pub pool: String,
    /// Its name, else its address.
    pub name: String,
    /// Its address, or its host name and port.
    pub address: String,
    /// Who has added it.
    pub added_by: String,
    /// When.
    pub added_at: String,
    /// When it is removed; null: not before an operator removes it.
    pub until: Option<String>,
}

/// A server that is left out of its pool because its address is that of our own listener, which leads back to the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOutBody {
    /// Its name, else its address.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The name of the listener.
    pub listener: String,
}

/// The state of TLS between acequia and the servers of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolTlsBody {
    /// Whether certificates of servers are verified.
    pub verify: bool,
    /// When our certificate for the servers expires; null: there is none.
    #[serde(default)]
    pub certificate_expires: Option<String>,
    /// Problems of files that were changed. Their earlier contents are still in force.
    pub broken: Vec<String>,
}

/// The queue of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueBody {
    /// Clients that wait.
    pub waiting: usize,
    /// The most clients that may wait; null: the pool has no `queue` now, although clients wait.
    pub max: Option<usize>,
    /// How long one client may wait; null if `max` is.
    pub timeout: Option<String>,
}

/// The clones of a pool that grows and shrinks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaleBody {
    /// The fewest clones.
    pub min: u32,
    /// The most clones.
    pub max: u32,
    /// The target number of sessions of each server.
    pub sessions_per_server: u32,
    /// How many clones an operator wants; null: the load decides.
    pub wanted: Option<u32>,
    /// Who has set `wanted`; null if `wanted` is.
    pub set_by: Option<String>,
    /// When `wanted` was set; null if `wanted` is.
    pub set_at: Option<String>,
    /// How often the pool has grown since the start, or since a reload has added the pool.
    pub up: u64,
    /// How often the pool has shrunk since then.
    pub down: u64,
    /// How often the pool grew from no clones because a client waited.
    pub cold_starts: u64,
    /// In the order of their numbers.
    pub clones: Vec<CloneBody>,
}

/// A clone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloneBody {
    /// Its name, which is also the name of its server.
    pub name: String,
    /// "starting", "running", "waiting" (to be started again), "draining" or "stopping".
    pub state: String,
    /// Since when.
    pub since: String,
    /// Its address; null: it has none at present.
    pub address: Option<String>,
    /// Its process ID; null: there is no process at present, or it is not ours.
    pub pid: Option<u32>,
    /// The name of its container; null: there is none at present, or the clone is not a container.
    pub container: Option<String>,
    /// How often it was started again. While it waits for a start, that start is counted already.
    pub restarts: u32,
    /// Why it was last started again, or could not be started; null: neither has happened.
    pub reason: Option<String>,
}
