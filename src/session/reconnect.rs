//! Connects a session of PostgreSQL to a server again.

use std::time::Duration;

use tokio::net::TcpStream;

use super::connect::record;
use super::fallback::note_stand_in;
use super::leased_server::LeasedServer;
use super::listener_state::ListenerState;
use super::postgres::reply_to_login;
use super::redial::{NotBegun, record_failure};
use super::refusal::{Refusal, within_tls};
use super::steps::Connected;
use crate::account::Entry;
use crate::dial::{DialClient, DialError, Dialled, LastAck, Progress, Search, dial, pause};
use crate::live::LivePool;
use crate::refuse::{PostgresError, Reply};
use crate::relay::{Closed, Side};
use crate::socket::close_cleanly_again;

/// Connects a session that its server has not begun to another server or, if no other is left, waits until one is back.
/// Returns whether it did: if not, all is as before.
///
/// # Errors
/// The client has left, or there was no server in time. The client then gets the message of this server, if it has sent
/// a whole one.
pub(super) async fn move_on(
    mut connected: Connected,
    why: &NotBegun,
    client: &TcpStream,
    state: &ListenerState,
    entry: &mut Entry,
) -> Result<(Connected, bool), Refusal> {
    entry.server_not_ready();
    let Some(mut redial) = connected.redial.take() else {
        return Ok((connected, false));
    };
    let pool = &state.pools[redial.pool];
    let Some(wait) = record_failure(&mut redial, &connected.server, why, pool) else {
        connected.redial = Some(redial);
        return Ok((connected, false));
    };
    let Connected { socket, server, .. } = connected;
    if let NotBegun::Ended { fault, .. } = why {
        let closed = fault.map_or(Closed::Finished(Side::Server), |fault| {
            Closed::Broke(Side::Server, fault)
        });
        server.report(client, closed, entry);
    }
    entry.server_left();
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
            let reply = match why {
                NotBegun::NotReady { message, .. } => Reply::Message(message.clone()),
                NotBegun::Ended { .. } if connected.client_tls.is_some() => {
                    Reply::Message(PostgresError::NoServer.response(entry.info().startup()))
                }
                NotBegun::Ended { .. } => reply_to_login(entry),
            };
            let reply = match connected.client_tls {
                Some(mut tls) => within_tls(reply, &mut tls),
                None => reply,
            };
            Err(Refusal::DialError(error, reply))
        }
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
        last_ack: LastAck::AtOnce,
    };
    let on_progress = |progress: Progress<'_>| record(&progress, pool.name(), entry);
    dial(pool, &pool.plan().dial, None, dial_client, search, on_progress).await
}
