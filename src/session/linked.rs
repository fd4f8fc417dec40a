//! A session whose client and server are connected, until its end.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::leased_server::LeasedServer;
use super::refusal::ending_of_fault;
use super::steps::Connected;
use crate::account::{Ending, Entry};
use crate::ends::Endpoints;
use crate::relay::{Closed, RelayLimits, Side, relay};

/// A client and a server between which bytes can be relayed.
pub(super) struct Linked {
    ends: Arc<Endpoints>,
    server: LeasedServer,
    first: Vec<u8>,
    limits: RelayLimits,
    entry: Entry,
}

impl Linked {
    /// Links a client to the server that was connected to for it.
    pub(super) fn new(client: TcpStream, connected: Connected, mut entry: Entry) -> Self {
        let Connected {
            socket,
            server,
            first,
            relay,
            asks_server: _,
        } = connected;
        let ends = Arc::new(Endpoints { client, server: socket });
        entry.relay_started(&ends);
        Self {
            ends,
            server,
            first,
            limits: relay,
            entry,
        }
    }

    fn into_parts(self) -> (Arc<Endpoints>, LeasedServer, Vec<u8>, RelayLimits, Entry) {
        (self.ends, self.server, self.first, self.limits, self.entry)
    }
}

/// Waits until the session is linked, relays bytes until it is over, and closes it. The lease is held until the server's
/// socket is closed. If `linking` returns `None`, the session is over already.
///
/// An idle session must stay small. So the values that the relay borrows are locals of this function: as arguments, they
/// would be stored twice in the future.
pub(super) async fn relay_when_linked(linking: impl Future<Output = Option<Linked>> + Unpin) {
    let (ends, server, first, limits, mut entry) = match linking.await {
        Some(linked) => linked.into_parts(),
        None => return,
    };
    let cut = entry.record().until_cut();
    let throttle = entry.info().guards.as_ref().and_then(|guards| guards.throttle());
    let closed = relay(
        &ends.client,
        &ends.server,
        first,
        limits,
        entry.traffic(),
        throttle,
        cut,
    )
    .await;
    entry.relay_finished(&ends);
    let finished = server.finished(&ends, closed, &entry);
    if closed.is_abrupt() {
        ends.reset_when_closed();
    }
    drop(ends);
    server.release(&finished);
    let ending = match closed {
        Closed::Finished(Side::Client) | Closed::ResetAfterEnd(Side::Client) => Ending::ClientClosed,
        Closed::Finished(Side::Server) | Closed::ResetAfterEnd(Side::Server) => Ending::ServerClosed,
        Closed::Broke(side, fault) => ending_of_fault(side, fault),
        Closed::Idle(_) => Ending::IdleTimeout,
        Closed::HalfClosed(_) => Ending::HalfCloseTimeout,
        Closed::Cut => entry.record().until_cut().await, // ready: it was cut
    };
    entry.close(ending);
}
