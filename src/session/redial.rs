//! Whether a session of PostgreSQL is connected to a server again, because the first one has not begun it.
//!
//! While a server starts or stops it accepts connections, and refuses each session. A client that has got nothing from it yet
//! loses nothing if such a refusal counts as a failed connect.

use tokio::time::Instant;

use super::leased_server::LeasedServer;
use super::listener_state::ListenerState;
use crate::dial::Search;
use crate::plan::PoolId;
use crate::socket::Fault;
use crate::units::format_duration;

/// What a session needs to be connected again, until its server has begun it.
pub(super) struct Redial {
    pub(super) pool: PoolId,
    /// The PROXY header for its server.
    pub(super) header: Vec<u8>,
    pub(super) search: Search,
    /// Whether a server has ended its connection without a word. The client may be the reason: so it happens only once that
    /// another server gets it.
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
    /// It has ended the connection without a word; `None`: by an orderly close.
    Ended(Option<Fault>),
}

/// Whether the session goes on without this server. If the server says that it takes no sessions, it gets no new ones for a
/// while.
pub(super) fn goes_on(redial: &mut Redial, server: &LeasedServer, why: &NotBegun, state: &ListenerState) -> bool {
    let (pool, now) = (&state.pools[redial.pool], Instant::now());
    let (reason, ejected_for) = match why {
        NotBegun::NotReady { reason, .. } => (&**reason, pool.session_refused(server.lease(), now)),
        NotBegun::Ended(_) if redial.has_met_end => return false,
        NotBegun::Ended(_) => {
            redial.has_met_end = true;
            ("closed", None)
        }
    };
    let retries = pool.plan().dial.retries;
    let (goes_on, rests_for) = redial.search.goes_on(pool, server.lease(), retries, true, now);
    if let Some(back_off) = rests_for.or(ejected_for) {
        tracing::warn!(pool = %pool.name(), server = %server.label(), reason, back_off = format_duration(back_off), "server is ejected");
    } else {
        tracing::debug!(pool = %pool.name(), server = %server.label(), reason, "the server does not begin a session");
    }
    goes_on
}
