//! A session whose client and server are connected, until its end.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::leased_server::LeasedServer;
use super::refusal::ending_of_fault;
use super::steps::Connected;
use crate::account::{Ending, Entry};
use crate::ends::Endpoints;
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

    /// Relays bytes until the session is over, and closes it. The lease is held until the server's socket is closed.
    ///
    /// No `async fn`: that would keep `self` beside its parts, and an idle session must stay small.
    pub(super) fn relay(self) -> impl Future<Output = ()> {
        let Self {
            ends,
            server,
            first,
            client_tls,
            limits,
            mut entry,
        } = self;
        async move {
            let cut = entry.record().until_cut();
            let closed = match client_tls {
                None => relay(&ends.client, &ends.server, first, limits, entry.traffic(), cut).await,
                // Boxed, so that a session without TLS stays small.
                Some(tls) => Box::pin(relay_over_tls(&ends, Some(*tls), first, limits, &entry, cut)).await,
            };
            entry.relay_finished(&ends);
            let finished = server.finished(&ends, closed, &entry);
            if closed.is_abrupt() {
                ends.reset_when_closed();
            }
            drop(ends);
            server.release(&finished);
            let ending = match closed {
                Closed::Finished(Side::Client) => Ending::ClientClosed,
                Closed::Finished(Side::Server) => Ending::ServerClosed,
                Closed::Broke(side, fault) => ending_of_fault(side, fault),
                Closed::Idle(_) => Ending::IdleTimeout,
                Closed::HalfClosed(_) => Ending::HalfCloseTimeout,
                Closed::Cut => entry.record().until_cut().await, // ready: it was cut
            };
            entry.close(ending);
        }
    }
}

/// Relays a session of which a side uses TLS that ends here. What goes wrong with that is kept for the log.
async fn relay_over_tls(
    ends: &Endpoints,
    client_tls: Option<TlsConnection>,
    first: Vec<u8>,
    limits: RelayLimits,
    entry: &Entry,
    cut: impl Future + Unpin,
) -> Closed {
    let client = TlsSide {
        socket: &ends.client,
        tls: client_tls,
    };
    let server = TlsSide {
        socket: &ends.server,
        tls: None,
    };
    let (closed, error) = relay_tls(client, server, first, limits, entry.traffic(), cut).await;
    if let Some(error) = error {
        entry.info().tls_mut().error = Some(error_word(&error));
    }
    closed
}
