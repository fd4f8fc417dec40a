//! The JSON bodies about sessions, see `docs/api.md`.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/sessions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionsBody {
    /// The number of sessions that match the filter.
    pub total: usize,
    /// A page of them, the oldest first. It begins after the session whose `id` is the parameter `after`. With the
    /// parameter `sort`, which names an amount such as `bytes`: the sessions with the most of it, the highest amount
    /// first.
    pub sessions: Vec<SessionBody>,
    /// The value of `after` for the next page; `null`: this is the last page, or `sort` is given.
    pub next: Option<u64>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionBody {
    /// Its number.
    pub id: u64,
    /// The listener that accepted it.
    pub listener: String,
    /// The remote address of the client's socket.
    pub peer: String,
    /// The client's address: the one that the peer's PROXY header names, otherwise the same as `peer`.
    pub client: String,
    /// The server name that the client asked for.
    pub sni: Option<String>,
    /// The protocols that the client offered.
    pub alpn: Option<String>,
    /// The database that the client asked for; `null`: no StartupMessage of PostgreSQL was read.
    pub database: Option<String>,
    /// The user that the client named; `null` if `database` is.
    pub user: Option<String>,
    /// The route that took it.
    pub route: Option<String>,
    /// The pool of its server.
    pub pool: Option<String>,
    /// Its server.
    pub server: Option<String>,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// Milliseconds since the last byte moved.
    pub idle_ms: u64,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes from the server.
    pub bytes_down: u64,
    /// The current rate from the client, in bytes per second.
    pub rate_up: u64,
    /// The current rate from the server, in bytes per second.
    pub rate_down: u64,
    /// The kernel's estimate of the round-trip time to the client, in microseconds.
    pub client_rtt_us: Option<u32>,
    /// The kernel's estimate of the round-trip time to the server, in microseconds.
    pub server_rtt_us: Option<u32>,
}

/// `DELETE /api/v1/sessions/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KilledBody {
    /// The number of the session that is being reset.
    pub killed: u64,
}
