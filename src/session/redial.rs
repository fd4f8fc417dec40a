//! Whether a session of PostgreSQL is connected to a server again, because the first one has not begun it.
//!
//! While a server starts or stops it accepts connections, and refuses each session. A client that has got nothing from
//! it yet loses nothing if such a refusal counts as a failed connect.

use std::time::Duration;

use tokio::time::Instant;

use super::leased_server::LeasedServer;
use crate::dial::Search;
use crate::live::LivePool;
use crate::plan::PoolId;
use crate::pool::{RETURN_WAIT, ServerFailure};
use crate::socket::Fault;
use crate::units::format_duration;

/// What a session needs to be connected again, until its server has begun it.
pub(super) struct Redial {
    pub(super) pool: PoolId,
    /// The PROXY header for its server.
    pub(super) header: Vec<u8>,
    pub(super) search: Search,
    /// Whether a server has ended its connection before its first message was complete. The client may be the reason,
    /// so this reconnects it only once.
    has_met_end: bool,
}

impl Redial {
    /// For a session that was connected to a server of this pool.
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
    /// It says that it takes none now, for this reason.
    NotReady {
        reason: String,
        /// The bytes of its message.
        message: Vec<u8>,
    },
    /// It has ended the connection before its first message was complete.
    Ended {
        /// `None`: by an orderly close.
        fault: Option<Fault>,
        /// What it had sent of the message.
        partial: Vec<u8>,
    },
}

/// Records that a server has not begun a session. Returns how long the session waits before it is connected again;
/// `None`: it stays with this server. If the server says that it takes no sessions, it gets no new ones for a while.
///
/// A server that ends the connection before its first message is complete still gets new sessions, because the client
/// may be the reason. Only this client waits for it, as for a server that restarts.
pub(super) fn record_failure(
    redial: &mut Redial,
    server: &LeasedServer,
    why: &NotBegun,
    pool: &LivePool,
) -> Option<Duration> {
    let (reason, failure) = match why {
        NotBegun::NotReady { reason, .. } => (&**reason, Some(ServerFailure::Refusal)),
        NotBegun::Ended { .. } if redial.has_met_end => return None,
        NotBegun::Ended { .. } => ("closed", None),
    };
    redial.has_met_end |= failure.is_none();
    let (search, lease, now) = (&mut redial.search, server.lease(), Instant::now());
    if failure.is_none() && search.begin_again(pool, lease, now) {
        return Some(RETURN_WAIT);
    }
    let (goes_on, back_off) = search.record_failure(pool, lease, pool.plan().dial.retries, failure, now);
    if let Some(back_off) = back_off {
        tracing::warn!(pool = %pool.name(), server = %server.label(), reason, back_off = format_duration(back_off), "server is ejected");
    } else {
        tracing::debug!(pool = %pool.name(), server = %server.label(), reason, "the server does not begin a session");
    }
    goes_on.then_some(Duration::ZERO)
}
