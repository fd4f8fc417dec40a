//! Decides whether a PostgreSQL session is connected again if its server has not begun the session.
//!
//! While a PostgreSQL server starts or stops, it accepts connections and refuses each session. As long as the client
//! has got nothing of the session's start from the server (an answer to an SSLRequest does not count), such a refusal
//! can be treated like a failed connect.

use std::time::Duration;

use tokio::time::Instant;

use super::leased_server::LeasedServer;
use crate::dial::Search;
use crate::live::LivePool;
use crate::plan::PoolId;
use crate::pool::{RETURN_WAIT, ServerFailure};
use crate::socket::Fault;
use crate::units::format_duration;

/// What a session keeps, so that it can be connected again as long as its server has not begun it.
pub(super) struct Redial {
    pub(super) pool: PoolId,
    /// The PROXY header for its server.
    pub(super) header: Vec<u8>,
    pub(super) search: Search,
    /// Whether there was a [`NotBegun::Ended`]. The client may be the reason, so the session is not connected again
    /// after the second one.
    has_met_end: bool,
}

impl Redial {
    /// Of a session that is connected to a server of this pool.
    pub(super) fn new(pool: PoolId, header: Vec<u8>, search: Search) -> Self {
        Self {
            pool,
            header,
            search,
            has_met_end: false,
        }
    }
}

/// Why a server has not begun a session.
pub(super) enum NotBegun {
    /// The server has said that it takes no sessions now, for this reason.
    NotReady {
        reason: String,
        /// The server's message, and what has come with it.
        message: Vec<u8>,
    },
    /// The server has ended the connection before its first message was complete, or has not read what it was sent in
    /// time.
    Ended {
        /// `None`: by an orderly close.
        fault: Option<Fault>,
        /// What the server had sent of the message.
        partial: Vec<u8>,
    },
}

/// Records that a server has not begun a session. Returns how long the session waits before it is connected again;
/// `None`: it may not be connected again, and stays with this server.
///
/// - [`NotBegun::NotReady`]: the server is ejected, if the rules of ejection allow that.
/// - [`NotBegun::Ended`]: this does not eject the server, because the client may be the reason. If no other server can
///   be picked, and clients of the pool wait for the return of servers
///   ([`Pool::waits_for_return`](crate::pool::Pool::waits_for_return)), this session waits for [`RETURN_WAIT`], and may
///   then get the same server again.
pub(super) fn record_failure(
    redial: &mut Redial,
    server: &LeasedServer,
    why: &NotBegun,
    pool: &LivePool,
) -> Option<Duration> {
    let (lease, now) = (server.lease(), Instant::now());
    let (reason, failure) = match why {
        NotBegun::NotReady { reason, .. } => (&**reason, Some(ServerFailure::Refusal)),
        NotBegun::Ended { .. } => {
            if redial.has_met_end {
                return None;
            }
            redial.has_met_end = true;
            if redial.search.begin_again(pool, lease, now) {
                return Some(RETURN_WAIT);
            }
            ("closed", None)
        }
    };
    let after = redial
        .search
        .record_failure(pool, lease, pool.plan().dial.retries, failure, now);
    if let Some(back_off) = after.ejected_for {
        tracing::warn!(pool = %pool.name(), server = %server.label(), reason, back_off = format_duration(back_off), "server is ejected");
    } else {
        tracing::debug!(pool = %pool.name(), server = %server.label(), reason, "the server does not begin a session");
    }
    after.goes_on.then_some(Duration::ZERO)
}
