//! Connects a PostgreSQL session again, because the server that it was connected to has not begun it.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpStream;

use super::connect::record_progress;
use super::fallback::note_stand_in;
use super::leased_server::LeasedServer;
use super::listener_state::ListenerState;
use super::postgres::reply_to_login;
use super::redial::{NotBegun, record_failure};
use super::refusal::{Refusal, encrypted};
use super::steps::Connected;
use crate::account::Entry;
use crate::dial::{DialClient, DialError, Dialled, LastAck, Progress, Search, dial, pause};
use crate::live::LivePool;
use crate::refuse::{PostgresError, Reply};
use crate::relay::{Closed, Side};
use crate::socket::close_cleanly_again;
use crate::tls::TlsConnection;

/// A session after [`move_on`].
pub(super) enum MovedOn {
    /// It has another connection now.
    Moved(Connected),
    /// It stays with its server.
    Stayed(Connected),
}

/// Connects a session to another server, because its server has not begun the session. If no other server is left, and
/// clients of the pool wait for the return of servers
/// ([`Pool::waits_for_return`](crate::pool::Pool::waits_for_return)), waits until a server is back or, after
/// [`NotBegun::Ended`], for a fixed time ([`RETURN_WAIT`](crate::pool::RETURN_WAIT)); the next server may then be the
/// same one. The session stays if it cannot be moved, or if [`record_failure`] says so.
///
/// # Errors
/// Those of [`pause`] and [`dial`].
pub(super) async fn move_on(
    mut connected: Connected,
    why: &NotBegun,
    client: &TcpStream,
    state: &ListenerState,
    entry: &mut Entry,
) -> Result<MovedOn, Refusal> {
    entry.server_not_ready();
    let Some(mut redial) = connected.redial.take() else {
        return Ok(MovedOn::Stayed(connected));
    };
    let pool = &state.pools[redial.pool];
    let Some(wait) = record_failure(&mut redial, &connected.server, why, pool) else {
        connected.redial = Some(redial);
        return Ok(MovedOn::Stayed(connected));
    };
    let Connected { socket, server, .. } = connected;
    if let NotBegun::Ended { fault, .. } = why {
        let closed = fault.map_or(Closed::Finished(Side::Server), |fault| {
            Closed::Broke(Side::Server, fault)
        });
        server.report(client, closed, entry);
    }
    entry.left_server();
    close_cleanly_again(&socket);
    server.abandon(socket);
    match dial_again(pool, wait, &mut redial.search, client, entry).boxed().await {
        Ok(dialled) => {
            note_stand_in(entry, pool, dialled.lease.server());
            Ok(MovedOn::Moved(Connected {
                socket: dialled.socket,
                server: LeasedServer::new(dialled.lease, pool),
                redial: Some(redial),
                ..connected
            }))
        }
        Err(error) => Err(Refusal::DialError(
            error,
            reply_without_server(why, connected.client_tls.as_deref_mut(), entry),
        )),
    }
}

/// The reply to a client for which there is no other server: the message of the server that has not begun the session,
/// or, if no whole message came from it, a reply of our own.
fn reply_without_server(why: &NotBegun, client_tls: Option<&mut TlsConnection>, entry: &Entry) -> Reply {
    let of_server = match why {
        NotBegun::NotReady { message, .. } => Some(Reply::Message(message.clone())),
        NotBegun::Ended { .. } => None,
    };
    match client_tls {
        Some(tls) => {
            let ours = || Reply::Message(PostgresError::NoServer.response(entry.info().startup()));
            encrypted(of_server.unwrap_or_else(ours), tls)
        }
        None => of_server.unwrap_or_else(|| reply_to_login(entry)),
    }
}

/// Dials after a wait, which may be zero.
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
        last_ack: LastAck::AtOnce,
    };
    let on_progress = |progress: Progress<'_>| record_progress(&progress, pool.name(), entry);
    dial(pool, &pool.plan().dial, None, dial_client, search, on_progress).await
}
