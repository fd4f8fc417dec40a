//! What the API answers: one type an answer, written by it and read by the commands.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/process`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Of this program.
    pub version: String,
    /// Its number, in its own namespace.
    pub pid: u32,
    /// When it began; RFC 3339, as all times are.
    pub started: String,
    /// The path of its configuration, from the root; absent: it runs no file.
    pub configuration: Option<String>,
}

/// `GET /api/v1/state`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Of this program.
    pub version: String,
    /// As in [`Process`].
    pub pid: u32,
    /// As in [`Process`].
    pub configuration: Option<String>,
    /// When the process began; RFC 3339, as all times are.
    pub started: String,
    /// Seconds since.
    pub uptime: u64,
    /// Whether it is about to end.
    pub draining: bool,
    /// How the latest reload went; absent: there was none.
    pub last_reload: Option<Reload>,
    /// Of the whole process.
    pub totals: Totals,
    /// In the order of the configuration.
    pub listeners: Vec<Listener>,
    /// In the order of the configuration.
    pub pools: Vec<Pool>,
    /// What was said of servers that no pool has now, and will hold when they are there again; in the order of their
    /// names.
    #[serde(default)]
    pub absent: Vec<Absent>,
}

/// How a reload went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reload {
    /// When.
    pub at: String,
    /// Who wanted it.
    pub by: String,
    /// Whether the file is in force since; else the configuration before it still is. Why is not told here, where a
    /// visitor without a token may read: it is in the log, and whoever asked was told.
    pub done: bool,
}

/// Of the whole process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Totals {
    /// Sessions there are.
    pub sessions: usize,
    /// Sessions there were, these included.
    pub sessions_so_far: u64,
    /// Servers there are.
    pub servers: usize,
    /// Of these, up.
    pub servers_up: usize,
}

/// A listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Those it really has.
    pub addresses: Vec<String>,
    /// Sessions it has.
    pub sessions: usize,
    /// Sessions it may have; absent: only the process's bound.
    pub max_connections: Option<usize>,
    /// Where those go whom no route takes; absent: they are refused.
    pub pool: Option<String>,
    /// In the order of the configuration, the first thousand.
    pub routes: Vec<Route>,
    /// Routes beyond these.
    pub more_routes: usize,
}

/// A route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// The first few of its patterns.
    pub sni: Vec<String>,
    /// The first few of its protocols.
    pub alpn: Vec<String>,
    /// The first few of its networks.
    pub from: Vec<String>,
    /// Entries of its conditions beyond these.
    pub more: usize,
    /// Where it leads; absent: it refuses.
    pub pool: Option<String>,
}

/// A pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How a server is chosen.
    pub balance: String,
    /// The best priority with a server that is up and gets new sessions; absent: there is none.
    pub best_tier: Option<u8>,
    /// Whether so few servers are well that all are used.
    pub panic: bool,
    /// In the order of the configuration.
    pub servers: Vec<Server>,
    /// Host names among them of which no resolver has said yet where they are.
    #[serde(default)]
    pub unresolved: Vec<String>,
}

/// A server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Server {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// Its tier.
    pub priority: u8,
    /// Its share.
    pub weight: u16,
    /// Whether it is up: its checks say so, or it has none, and failed connects have not taken it out.
    #[serde(default)]
    pub up: bool,
    /// What its checks say: `up`, `down` or `unchecked`.
    pub health: String,
    /// What was wrong at its latest check; absent: nothing.
    pub reason: Option<String>,
    /// Since when its checks say so.
    pub since: String,
    /// Whether failed connects have taken it out for a while.
    pub ejected: bool,
    /// `enabled`, `draining` or `disabled`.
    #[serde(rename = "use")]
    pub usage: String,
    /// Over what time its sessions are cut, if it is not enabled; absent: they are not.
    pub close_over: Option<String>,
    /// Whether its weight was set by hand.
    pub weight_is_set: bool,
    /// Who set that last; absent: nobody ever did.
    pub set_by: Option<String>,
    /// When.
    pub set_at: Option<String>,
    /// Sessions it has.
    pub sessions: u32,
    /// Sessions it ever got.
    pub sessions_so_far: u64,
}

/// What was said of a server that is not there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Absent {
    /// The pool it was in.
    pub pool: String,
    /// What it is called there.
    pub name: String,
    /// As of a [`Server`].
    #[serde(rename = "use")]
    pub usage: String,
    /// As of a [`Server`].
    pub close_over: Option<String>,
    /// Its share; absent: the configured one.
    pub weight: Option<u16>,
    /// As of a [`Server`].
    pub set_by: Option<String>,
    /// As of a [`Server`].
    pub set_at: Option<String>,
}

/// `POST /api/v1/servers/{pool}/{server}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Steered {
    /// A server that is there.
    There(Box<Server>),
    /// One that is not.
    Absent(Absent),
}

/// `GET /api/v1/sessions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sessions {
    /// Those that pass the filter.
    pub total: usize,
    /// The first of them after `after`, the oldest first.
    pub sessions: Vec<Session>,
    /// What to give for `after` to see the next; absent: there are no more.
    pub next: Option<u64>,
}

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its number.
    pub id: u64,
    /// Where it came in.
    pub listener: String,
    /// The other end of the client's socket.
    pub peer: String,
    /// Whom the peer speaks for.
    pub client: String,
    /// The name it asked for.
    pub sni: Option<String>,
    /// The protocols it offered.
    pub alpn: Option<String>,
    /// The route it took.
    pub route: Option<String>,
    /// The pool it was sent to.
    pub pool: Option<String>,
    /// The server it is on.
    pub server: Option<String>,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// Milliseconds since a byte moved.
    pub idle_ms: u64,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes from the server.
    pub bytes_down: u64,
    /// Bytes a second from the client, lately.
    pub rate_up: u64,
    /// Bytes a second from the server, lately.
    pub rate_down: u64,
    /// The kernel's estimate of the round trip to the client, microseconds.
    pub client_rtt_us: Option<u32>,
    /// The same to the server.
    pub server_rtt_us: Option<u32>,
}

/// `DELETE /api/v1/sessions/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Killed {
    /// The session that is being ended.
    pub killed: u64,
}

/// `GET /api/v1/route`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Routed {
    /// The route that takes the client; absent: none does.
    pub route: Option<String>,
    /// Where it goes; absent: it is refused.
    pub pool: Option<String>,
    /// What became of each route.
    pub routes: Vec<Verdict>,
    /// The servers that may be picked now, in the order in which they would be tried where there is one.
    pub servers: Vec<String>,
}

/// What became of a route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name.
    pub route: String,
    /// `taken`, `outranked` or `passed over`.
    pub verdict: String,
    /// Why, unless it is taken.
    pub why: Vec<String>,
}

/// Any answer that is none of the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Error {
    /// What is wrong, and what would be right.
    pub error: String,
}
