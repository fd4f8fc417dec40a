//! A session whose client and server are connected, until its end.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::leased_server::LeasedServer;
use super::refusal::ending_of_fault;
use super::steps::Connected;
use crate::account::{Ending, Entry};
use crate::ends::Endpoints;
use crate::guard::Throttle;
use crate::relay::{Closed, RelayLimits, Side, TlsSide, relay, relay_tls};
use crate::tls::{TlsConnection, error_word};

/// A client and a server between which bytes can be relayed.
pub(super) struct Linked {
    ends: Arc<Endpoints>,
    server: LeasedServer,
    first: Vec<u8>,
    client_tls: Option<Box<TlsConnection>>,
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
            client_tls,
            relay,
            asks_server: _,
        } = connected;
        let ends = Arc::new(Endpoints { client, server: socket });
        entry.relay_started(&ends);
        Self {
            ends,
            server,
            first,
            client_tls,
            limits: relay,
            entry,
        }
    }

    fn into_parts(self) -> (Arc<Endpoints>, LeasedServer, ToRelay, RelayLimits, Entry) {
        let to_relay = match self.client_tls {
            None => ToRelay::Plain(self.first),
            Some(client) => ToRelay::Tls(Box::new((*client, self.first))),
        };
        (self.ends, self.server, to_relay, self.limits, self.entry)
    }
}

/// Waits until the session is linked, relays bytes until it is over, and closes it. The lease is held until the server's
/// socket is closed. If `linking` returns `None`, the session is over already.
///
/// An idle session must stay small. So the values that the relay borrows are locals of this function: as arguments, they
/// would be stored twice in the future.
pub(super) async fn relay_when_linked(linking: impl Future<Output = Option<Linked>> + Unpin) {
    let (ends, server, to_relay, limits, mut entry) = match linking.await {
        Some(linked) => linked.into_parts(),
        None => return,
    };
    let cut = entry.record().until_cut();
    let throttle = entry.info().guards.as_ref().and_then(|guards| guards.throttle());
    let closed = match to_relay {
        ToRelay::Plain(first) => {
            relay(
                &ends.client,
                &ends.server,
                first,
                limits,
                entry.traffic(),
                throttle,
                cut,
            )
            .await
        }
        // Boxed, so that a session without TLS stays small.
        ToRelay::Tls(sides) => Box::pin(relay_over_tls(&ends, sides, limits, &entry, throttle, cut)).await,
    };
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

/// What is relayed beyond the sockets: what is sent to the server first, and the TLS that ends here.
enum ToRelay {
    Plain(Vec<u8>),
    Tls(Box<(TlsConnection, Vec<u8>)>),
}

/// Relays a session of which a side uses TLS that ends here. What goes wrong with that is kept for the log.
async fn relay_over_tls(
    ends: &Endpoints,
    sides: Box<(TlsConnection, Vec<u8>)>,
    limits: RelayLimits,
    entry: &Entry,
    throttle: Option<Box<Throttle>>,
    cut: impl Future + Unpin,
) -> Closed {
    let (client_tls, first) = *sides;
    let client = TlsSide {
        socket: &ends.client,
        tls: Some(client_tls),
    };
    let server = TlsSide {
        socket: &ends.server,
        tls: None,
    };
    let (closed, error) = relay_tls(client, server, first, limits, entry.traffic(), throttle, cut).await;
    if let Some(error) = error {
        entry.info().tls_mut().error = Some(error_word(&error));
    }
    closed
}
