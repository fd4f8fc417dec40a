//! A CancelRequest: sends it to the servers that it may be for.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::listener_state::ListenerState;
use super::refusal::Refusal;
use super::steps::{forwarded, proxy_header};
use crate::account::{CancelPlacement, Entry};
use crate::cancel::CancelTarget;
use crate::dial::{ConnectFailure, LastAck, connect};
use crate::plan::{Protocol, UnplacedCancel};
use crate::sniff::postgres::CancelKey;
use crate::socket::local_address;

/// How long one server may take, connecting included. It ends the connection once the query is cancelled, and so do we:
/// libpq waits for that.
const SERVER_TIME_MAX: Duration = Duration::from_secs(2);

/// How long all servers together may take. Those that it has not come to then do not get the request. That the client leaves
/// is no reason to stop: it need not wait for the end, and a server cancels all the same.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Servers that one request is sent to by `cancel_unplaced = "fanout"`.
const FANOUT_MAX: usize = 64;

/// Sends a CancelRequest to the server of the session with this key; if the key is not known, to the servers that it may
/// be for. One after the other: a session may have only one connection to a server.
///
/// Returns how the session of the request ends.
pub(super) async fn cancel(client: &TcpStream, key: CancelKey, state: &ListenerState, entry: &mut Entry) -> Refusal {
    let (placement, targets) = place(&key, state, entry);
    state.series.record_cancel(placement);
    entry.info().detail = Some(placement.as_str());
    let request = key.request();
    let until = Instant::now() + TIME_MAX;
    for target in &targets {
        if Instant::now() >= until {
            tracing::debug!("the servers take too long: the rest of them does not get the cancel request");
            break;
        }
        entry.pool_chosen(&target.pool);
        entry.attempt_started(&target.server);
        let began = Instant::now();
        let sent = timeout_at(
            until.min(began + SERVER_TIME_MAX),
            send(client, target, &request, state, entry),
        )
        .await;
        let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        entry.attempt_finished(began.elapsed(), sent.as_ref().err().map(ConnectFailure::of));
    }
    Refusal::Cancelled
}

/// The servers that a request is sent to, and how they were found.
fn place(key: &CancelKey, state: &ListenerState, entry: &Entry) -> (CancelPlacement, Vec<CancelTarget>) {
    let (table, listener, client) = (&state.cancels, &state.plan.name, entry.info().client.host());
    if let Some(target) = table.server_of(key) {
        return (CancelPlacement::Key, vec![target]);
    }
    let of_client = table.servers_of(listener, client);
    let (placement, targets) = match state.plan.protocol {
        _ if !of_client.is_empty() => (CancelPlacement::Client, of_client),
        Protocol::Postgres {
            cancel_unplaced: UnplacedCancel::Fanout,
            ..
        } => (CancelPlacement::Fanout, all_servers(state)),
        _ => return (CancelPlacement::Unplaced, Vec::new()),
    };
    if table.admit(listener, client, Instant::now()) {
        (placement, targets)
    } else {
        (CancelPlacement::Limited, Vec::new())
    }
}

/// The servers of the listener's pools, each once.
fn all_servers(state: &ListenerState) -> Vec<CancelTarget> {
    let mut targets: Vec<CancelTarget> = Vec::new();
    for pool in state.plan.routes.targets().map(|id| &state.pools[*id]) {
        for member in pool.servers().iter() {
            let is_new = targets.iter().all(|target| target.server.id() != member.id());
            if is_new && targets.len() < FANOUT_MAX {
                targets.push(CancelTarget {
                    server: (**member).clone(),
                    pool: pool.name().clone(),
                    connect: pool.plan().dial.connect.clone(),
                });
            }
        }
    }
    targets
}

/// Sends the request to a server, and waits until that ends the connection.
async fn send(
    client: &TcpStream,
    target: &CancelTarget,
    request: &[u8],
    state: &ListenerState,
    entry: &Entry,
) -> io::Result<()> {
    let client_address = entry.info().client;
    let mut first = match target.connect.proxy_protocol {
        Some(version) => {
            let local = local_address(client, state.plan.unix_address());
            let header = proxy_header(version, client_address, local, (None, None), forwarded(entry).as_ref());
            header.map_err(|_| io::ErrorKind::NotConnected)?
        }
        None => Vec::new(),
    };
    first.extend(request);
    let mut server = connect(
        &target.server.spec().address,
        &target.connect,
        Some(client_address),
        LastAck::AtOnce,
    )
    .await?;
    server.write_all(&first).await?;
    let mut answer = [0; 64]; // none is expected
    while server.read(&mut answer).await.unwrap_or(0) > 0 {}
    Ok(())
}
