//! What a check finds out about a server, as plain values. They are the same for every pool that the server is in; what
//! they mean for a pool is judged by that pool.

use std::fmt;
use std::time::Duration;

use super::health::CheckOutcome;

/// The role of a database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica,
}

/// How the histories of a primary's data are numbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbering {
    /// By timelines, as in PostgreSQL. The number only grows.
    #[default]
    Timeline,
    /// Histories have no numbers.
    None,
    /// By configuration epochs of Sentinels. The number begins at 0 again when the Sentinels are set up anew.
    Epoch {
        /// Whether the Sentinels agree on this epoch, so that it counts even if a higher epoch is known.
        is_agreed: bool,
    },
}

/// The word that messages have before the number of a history. [`Numbering::None`] has no number to show.
impl fmt::Display for Numbering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeline | Self::None => "timeline",
            Self::Epoch { .. } => "epoch",
        })
    }
}

/// What a check has found out about a server. What is `None` does not apply to the server, or is not known: the kind of
/// check cannot tell, the server does not say, or the check may not ask or is not configured to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerFacts {
    /// The role that the server says it has. A server that is not fit for use counts as a replica if it is certainly
    /// not a primary.
    pub role: Option<Role>,
    /// Whether other servers may be primaries beside it, because their cluster puts the writes of all in one order.
    pub is_multi_primary: bool,
    /// The identity of the data. A server and its replicas share it; a database that was set up anew has another one.
    pub system_identifier: Option<u64>,
    /// The history of the data that the server writes to if it is a primary; `None` for a replica. The promotion of a
    /// replica begins a new history with a higher number.
    pub timeline: Option<u32>,
    /// The kind of number that `timeline` is.
    pub numbering: Numbering,
    /// Where the server is in the log of changes.
    pub wal: Option<WalPosition>,
    /// `(timeline, position)` of the latest point from which a replica can start again.
    pub restartpoint: Option<(u32, u64)>,
    /// A replica whose stream is that of a primary follows this primary. So no addresses need to be compared.
    pub stream: Option<Stream>,
    /// How far a replica says it is behind its primary; [`Duration::MAX`]: it cannot say. Used if `wal` is not known.
    pub lag: Option<Duration>,
    /// The SQL function that the database user of the check may not call, so that `timeline` and `wal` are not known.
    pub denied: Option<&'static str>,
}

/// Identifies the changes that a primary sends, or that a replica receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A number that a primary shares with all servers that follow it, directly or through others.
    Lineage(u128),
    /// The number of the primary itself, or of the server that a replica is connected to, which may be a replica, too.
    Source(u32),
}

/// A check that did not pass.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedCheck {
    /// Its result.
    pub outcome: CheckOutcome,
    /// What it has found out nevertheless.
    pub facts: Box<ServerFacts>,
}

impl From<CheckOutcome> for FailedCheck {
    /// A check that has found out nothing but its outcome.
    fn from(outcome: CheckOutcome) -> Self {
        let facts = Box::default();
        Self { outcome, facts }
    }
}

/// Where a server is in the log of changes, in bytes from its beginning. Only positions on the same timeline can be
/// compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalPosition {
    /// Up to where a primary has written, or a replica has received.
    pub written: u64,
    /// Up to where a replica has applied; on a primary the same as `written`.
    pub applied: u64,
    /// Whether a replica is connected to a server that it follows.
    pub is_following: bool,
}
