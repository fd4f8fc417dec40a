//! Connects a session of PostgreSQL to a server again, because the first one has not begun it.
//!
//! While a server starts or stops it accepts connections, and refuses each session. A client that has got nothing from it yet
//! loses nothing if such a refusal counts as a failed connect.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connect::record;
use super::fallback::note_stand_in;
use super::leased_server::LeasedServer;
use super::listener_state::ListenerState;
use super::postgres::reply_to_login;
use super::refusal::{Refusal, within_tls};
use super::steps::Connected;
use crate::account::Entry;
use crate::dial::{ConnectFailure, DialClient, DialError, Dialled, Progress, Search, dial, pause};
use crate::live::LivePool;
use crate::plan::PoolId;
use crate::pool::{RETURN_WAIT, ServerFailure};
use crate::refuse::Reply;
use crate::relay::{Closed, Side};
use crate::socket::{Fault, close_cleanly_again};
use crate::units::format_duration;

/// What a session needs to be connected again, until its server has begun it.
pub(super) struct Redial {
    pub(super) pool: PoolId,
    /// The PROXY header for its server.
    pub(super) header: Vec<u8>,
    pub(super) search: Search,
    /// Whether a server has ended its connection without a word. The client may be the reason, so another server gets it only
    /// once.
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

/// Connects a session that its server has not begun to another server or, if no other is left, waits until one is back. Returns
/// whether it did: if not, all is as before.
///
/// # Errors
/// The client has left, or there was no server in time. The client then gets the message of this server, if it has sent one.
pub(super) async fn move_on(
    mut connected: Connected,
    why: &NotBegun,
    client: &TcpStream,
    state: &ListenerState,
    entry: &mut Entry,
) -> Result<(Connected, bool), Refusal> {
    let Some(mut redial) = connected.redial.take() else {
        return Ok((connected, false));
    };
    let pool = &state.pools[redial.pool];
    let Some(wait) = record_failure(&mut redial, &connected.server, why, pool) else {
        connected.redial = Some(redial);
        return Ok((connected, false));
    };
    let Connected { socket, server, .. } = connected;
    if let NotBegun::Ended(fault) = why {
        let closed = fault.map_or(Closed::Finished(Side::Server), |fault| {
            Closed::Broke(Side::Server, fault)
        });
        server.report(client, closed, entry);
    }
    entry.attempt_undone(ConnectFailure::NotReady);
    close_cleanly_again(&socket);
    server.abandon(socket);
    match Box::pin(dial_again(pool, wait, &mut redial.search, client, entry)).await {
        Ok(dialled) => {
            note_stand_in(entry, pool, dialled.lease.server());
            let connected = Connected {
                socket: dialled.socket,
                server: LeasedServer::new(dialled.lease, pool),
                redial: Some(redial),
                ..connected
            };
            Ok((connected, true))
        }
        Err(error) => {
            let reply = match (why, connected.client_tls) {
                (NotBegun::NotReady { message, .. }, None) => Reply::Message(message.clone()),
                (NotBegun::NotReady { message, .. }, Some(mut tls)) => {
                    within_tls(Reply::Message(message.clone()), &mut tls)
                }
                (NotBegun::Ended(_), _) => reply_to_login(entry),
            };
            Err(Refusal::DialError(error, reply))
        }
    }
}

/// Records that a server has not begun a session. Returns how long the session waits before it goes on without this server;
/// `None`: it does not. If the server says that it takes no sessions, it gets no new ones for a while.
///
/// A server that ends the connection without a word gets new sessions all the same, because the client may be the reason: only
/// this client waits for it, like for one that restarts.
fn record_failure(redial: &mut Redial, server: &LeasedServer, why: &NotBegun, pool: &LivePool) -> Option<Duration> {
    let (reason, failure) = match why {
        NotBegun::NotReady { reason, .. } => (&**reason, Some(ServerFailure::Refusal)),
        NotBegun::Ended(_) if redial.has_met_end => return None,
        NotBegun::Ended(_) => ("closed", None),
    };
    redial.has_met_end |= failure.is_none();
    let (search, retries, now) = (&mut redial.search, pool.plan().dial.retries, Instant::now());
    let (goes_on, back_off) = search.record_failure(pool, server.lease(), retries, failure, now);
    if let Some(back_off) = back_off {
        tracing::warn!(pool = %pool.name(), server = %server.label(), reason, back_off = format_duration(back_off), "server is ejected");
    } else {
        tracing::debug!(pool = %pool.name(), server = %server.label(), reason, "the server does not begin a session");
    }
    if goes_on {
        Some(Duration::ZERO)
    } else {
        (failure.is_none() && search.begin_again(pool, now)).then_some(RETURN_WAIT)
    }
}

/// Dials after a wait.
async fn dial_again(
    pool: &LivePool,
    wait: Duration,
    search: &mut Search,
    client: &TcpStream,
    entry: &mut Entry,
) -> Result<Dialled, DialError> {
    if !wait.is_zero() {
        pause(client, wait).await?;
    }
    let dial_client = DialClient {
        socket: client,
        address: entry.info().client(),
        may_half_close: false,
        awaits_answer: true,
    };
    let on_progress = |progress: Progress<'_>| record(&progress, pool.name(), entry);
    dial(pool, &pool.plan().dial, None, dial_client, search, on_progress).await
}
