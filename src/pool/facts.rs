//! What a check finds out about a server, as plain values. They are the same for every pool that the server is in; what
//! they mean for a pool is judged by that pool.

use std::time::Duration;

/// The role of a database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica,
}

/// What a check that passed has found out about a server. What is `None` is not known: the kind of check cannot tell, the
/// server does not say, or the check is not configured to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerFacts {
    /// The role that the server says it has.
    pub role: Option<Role>,
    /// The identity of the data. A server and its replicas have the same; a database that was set up anew has another.
    pub system_identifier: Option<u64>,
    /// The history of the data that a primary writes to. The promotion of a replica begins a new one with a higher number.
    pub timeline: Option<u32>,
    /// How far a replica says it is behind its primary.
    pub lag: Option<Duration>,
}
