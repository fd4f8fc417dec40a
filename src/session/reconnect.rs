//! Connects a session of PostgreSQL to a server again.

use tokio::net::TcpStream;

use super::connect::record;
use super::fallback::note_stand_in;
use super::leased_server::LeasedServer;
use super::listener_state::ListenerState;
use super::postgres::reply_to_login;
use super::redial::{NotBegun, goes_on};
use super::refusal::{Refusal, within_tls};
use super::steps::Connected;
use crate::account::Entry;
use crate::dial::{ConnectFailure, DialClient, Progress, dial};
use crate::refuse::Reply;
use crate::relay::{Closed, Side};
use crate::socket::close_cleanly_again;

/// Connects a session that its server has not begun to another server or, if no other is left, waits in the queue until one is
/// back. Returns whether it did: if not, all is as before.
///
/// # Errors
/// The client has left, or there was no server in time. A client in the clear then gets the message of the first server.
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
    if !goes_on(&mut redial, &connected.server, why, state) {
        connected.redial = Some(redial);
        return Ok((connected, false));
    }
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
    let dial_client = DialClient {
        socket: client,
        address: entry.info().client(),
        may_half_close: false,
        awaits_answer: true,
    };
    let options = &pool.plan().dial;
    let on_progress = |progress: Progress<'_>| record(&progress, pool.name(), entry);
    let dialled = Box::pin(dial(pool, options, None, dial_client, &mut redial.search, on_progress)).await;
    match dialled {
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
