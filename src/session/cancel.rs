//! Sends a CancelRequest of PostgreSQL to the servers that it may be for.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::connect::header_for;
use super::listener_state::ListenerState;
use super::refusal::Refusal;
use crate::account::{CancelPlacement, Entry};
use crate::addr::ClientAddr;
use crate::cancel::{CancelTarget, SERVERS_MAX};
use crate::dial::{ConnectFailure, LastAck, connect};
use crate::plan::{Protocol, UnplacedCancel};
use crate::sniff::hello::Hello;
use crate::sniff::postgres::CancelKey;
use crate::tls::TlsConnection;

/// How long one server may take, connecting included. A server ends the connection once it has handled the request.
/// Only then do we end the client's connection: libpq waits for its end.
const SERVER_TIME_MAX: Duration = Duration::from_secs(2);

/// How long all servers together may take. Servers whose turn has not come by then do not get the request. If the
/// client leaves meanwhile, sending goes on, because a client need not wait until its query is cancelled.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The most connections that one request has at once: enough for all servers on which its client has sessions
/// ([`SERVERS_MAX`] at most). Each takes a permit for a descriptor. If no permit is free, it waits until the request
/// has no other connection, and uses the descriptor that every session has for its server.
const AT_ONCE_MAX: usize = SERVERS_MAX;

/// The most servers that one request is sent to by `cancel_unplaced = "fanout"`.
const FANOUT_MAX: usize = 64;

/// Sends a CancelRequest to the server of the session with this key; if the key is not known, to the servers that
/// the request may be for, at most [`AT_ONCE_MAX`] at once. `tls` is the client's TLS if it is terminated here.
///
/// Returns how the session of the request ends.
pub(super) async fn cancel(
    client: &TcpStream,
    key: CancelKey,
    state: &ListenerState,
    entry: &mut Entry,
    tls: Option<&(Box<TlsConnection>, Hello)>,
) -> Refusal {
    let (placement, targets) = place(&key, state, entry);
    state.series.record_cancel(placement);
    entry.info().detail = Some(placement.as_str());
    entry.info().is_past_relay = true; // there is no relay: the session never counts as connected to a server
    let (client_address, until) = (entry.info().client(), Instant::now() + TIME_MAX);
    let mut targets = targets.into_iter();
    // Not spawned as tasks: a session that is cut drops the connections before it returns its descriptors.
    let mut sending = FuturesUnordered::new();
    loop {
        while sending.len() < AT_ONCE_MAX && targets.len() > 0 && Instant::now() < until {
            let permit = state.cancels.try_connect();
            if permit.is_none() && !sending.is_empty() {
                break; // without a permit, a connection starts only while there is no other
            }
            let Some(target) = targets.next() else { break };
            let Ok(mut bytes) = header_for(&target.connect, &state.plan, client, entry, None, tls) else {
                continue; // the socket of the client has no address any more
            };
            bytes.extend(key.request());
            sending.push(async move {
                let _permit = permit; // dropped after the connection
                send(target, bytes, client_address, until).await
            });
        }
        let Some(sent) = sending.next().await else { break };
        let SentCancel { target, took, failure } = sent;
        entry.pool_chosen(&target.pool);
        entry.attempt_started(&target.server);
        entry.attempt_finished(took, failure);
    }
    if targets.len() > 0 {
        tracing::debug!(
            left = targets.len(),
            "the servers answer too slowly: the others do not get the cancel request"
        );
    }
    Refusal::Cancelled
}

/// The servers that a request is sent to, and how they were found.
fn place(key: &CancelKey, state: &ListenerState, entry: &Entry) -> (CancelPlacement, Vec<CancelTarget>) {
    let (table, listener, client) = (&state.cancels, &state.plan.name, entry.info().client().host());
    if let Some(target) = table.server_of(key) {
        return (CancelPlacement::Key, vec![target]);
    }
    let of_client = table.servers_of(listener, client);
    let fans_out = matches!(
        state.plan.protocol,
        Protocol::Postgres {
            cancel_unplaced: UnplacedCancel::Fanout,
            ..
        }
    );
    let (placement, targets) = if !of_client.is_empty() {
        (CancelPlacement::Client, of_client)
    } else if fans_out {
        (CancelPlacement::Fanout, all_servers(state))
    } else {
        return (CancelPlacement::Unplaced, Vec::new());
    };
    if table.admit(listener, client, Instant::now()) {
        (placement, targets)
    } else {
        (CancelPlacement::Limited, Vec::new())
    }
}

/// The servers of the listener's pools, each once, those that are up first: at most [`FANOUT_MAX`].
fn all_servers(state: &ListenerState) -> Vec<CancelTarget> {
    let mut targets = Vec::new();
    let mut known = HashSet::new();
    for pool in state.plan.routes.targets().map(|id| &state.pools[*id]) {
        for member in pool.servers().iter().filter(|member| known.insert(member.id())) {
            targets.push(CancelTarget {
                server: (**member).clone(),
                pool: pool.name().clone(),
                connect: pool.plan().dial.connect.clone(),
            });
        }
    }
    targets.sort_by_cached_key(|target| !target.server.is_up());
    targets.truncate(FANOUT_MAX);
    targets
}

/// The result of the connection to a server.
struct SentCancel {
    target: CancelTarget,
    /// How long connecting took.
    took: Duration,
    /// Why there was no connection.
    failure: Option<ConnectFailure>,
}

/// Connects to a server, sends it these bytes, and waits until the server ends the connection.
async fn send(target: CancelTarget, bytes: Vec<u8>, client: ClientAddr, until: Instant) -> SentCancel {
    let began = Instant::now();
    let until = until.min(began + SERVER_TIME_MAX);
    let address = &target.server.spec().address;
    let connected = timeout_at(until, connect(address, &target.connect, Some(client), LastAck::AtOnce)).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let (took, failure) = (began.elapsed(), connected.as_ref().err().map(ConnectFailure::classify));
    if let Ok(mut server) = connected {
        let delivery = async {
            server.write_all(&bytes).await?;
            let mut answer = [0; 64]; // none is expected
            while server.read(&mut answer).await? > 0 {}
            io::Result::Ok(())
        };
        // Not a failure of the server: it may have received the request nevertheless.
        if !matches!(timeout_at(until, delivery).await, Ok(Ok(()))) {
            tracing::debug!(server = %target.server.spec().label, "the server did not close a cancel connection cleanly");
        }
    }
    SentCancel { target, took, failure }
}
