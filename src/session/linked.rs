//! A session whose client and server are connected, until its end.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::leased_server::LeasedServer;
use super::refusal::ending_of_fault;
use super::steps::Connected;
use crate::account::{Ending, Entry, Record};
use crate::ends::Endpoints;
use crate::guard::{Throttle, throttle};
use crate::late_keepalive;
use crate::relay::{Closed, EndRequest, RelayLimits, Side, TlsSide, relay, relay_tls};
use crate::socket::read_closed;
use crate::tls::{TlsConnection, error_word};

/// A client and a server between which bytes can be relayed.
pub(super) struct Linked {
    ends: Arc<Endpoints>,
    server: LeasedServer,
    /// The first bytes for the server: see [`Connected::first`].
    first: Vec<u8>,
    client_tls: Option<Box<TlsConnection>>,
    server_tls: Option<Box<TlsConnection>>,
    limits: RelayLimits,
    entry: Entry,
}

impl Linked {
    /// Links a client to its server.
    pub(super) fn new(client: TcpStream, connected: Connected, mut entry: Entry) -> Self {
        let Connected {
            socket,
            server,
            first,
            client_tls,
            server_tls,
            relay,
            keepalive,
            has_ssl_request: _,
            redial: _,
        } = connected;
        let ends = Arc::new(Endpoints { client, server: socket });
        if let Some(keepalive) = keepalive
            && server.is_tcp()
        {
            late_keepalive::set_later(&ends, keepalive);
        }
        entry.relay_started(&ends);
        Self {
            ends,
            server,
            first,
            client_tls,
            server_tls,
            limits: relay,
            entry,
        }
    }

    fn into_parts(self) -> (Arc<Endpoints>, RelayedSession, ToRelay, RelayLimits) {
        let to_relay = if self.client_tls.is_none() && self.server_tls.is_none() {
            ToRelay::Plain(self.first)
        } else {
            ToRelay::Tls(Box::new(TlsToRelay {
                client: self.client_tls,
                server: self.server_tls,
                first: self.first,
            }))
        };
        let session = RelayedSession {
            entry: self.entry,
            server: self.server,
        };
        (self.ends, session, to_relay, self.limits)
    }
}

/// Waits until the session is linked, relays bytes until it is over, and closes it. The lease ends once the server has
/// ended the session, while the client may still receive what the server has sent; otherwise it ends after the relay
/// (see [`LeasedServer::release`]). If `linking` returns `None`, the session is over already.
///
/// An idle session must stay small. So the values that the relay borrows are locals of this function: the function's
/// `Future` would store arguments twice.
pub(super) async fn relay_when_linked(linking: impl Future<Output = Option<Linked>> + Unpin) {
    let (ends, session, to_relay, limits) = match linking.await {
        Some(linked) => linked.into_parts(),
        None => return,
    };
    let (entry, end_request, ends_with_server) = (&session.entry, session.end_request(), limits.ends_with_server);
    let throttle = entry
        .info()
        .extras
        .as_ref()
        .and_then(|extras| throttle(extras.passes()));
    let closed = match to_relay {
        ToRelay::Plain(first) => {
            relay(
                &ends.client,
                &ends.server,
                first,
                limits,
                entry.traffic(),
                throttle,
                end_request,
            )
            .await
        }
        ToRelay::Tls(to_relay) => {
            relay_over_tls(&ends, to_relay, limits, entry, throttle, end_request)
                .boxed()
                .await
        }
    };
    let RelayedSession { mut entry, server } = session;
    late_keepalive::forget(&ends);
    entry.relay_finished(&ends);
    let at_rest = (closed == Closed::AtRest).then(|| Arc::clone(&ends));
    server.release(ends, closed, &entry, ends_with_server);
    let ending = ending_of(closed, entry.record());
    match at_rest {
        Some(ends) => close_at_rest(ends, entry, ending).boxed().await,
        None => entry.close(ending),
    }
}

/// A session while it is relayed.
struct RelayedSession {
    entry: Entry,
    server: LeasedServer,
}

impl RelayedSession {
    /// Ready at each request about the end of the session (see [`EndRequest`]). Polling this future also ends the lease
    /// if the server has ended the session. The relay polls it whenever it has moved what can be moved, so the lease
    /// ends without delay.
    fn end_request(&self) -> impl Future<Output = EndRequest<'_>> + Unpin {
        poll_fn(|cx| {
            if self.entry.traffic().down.has_ended() {
                self.server.end_lease();
            }
            self.entry.record().poll_end_request(cx)
        })
    }
}

fn ending_of(closed: Closed, record: &Record) -> Ending {
    match closed {
        Closed::Finished(Side::Client) | Closed::ResetAfterEnd(Side::Client) => Ending::ClientClosed,
        Closed::Finished(Side::Server) | Closed::ResetAfterEnd(Side::Server) => Ending::ServerClosed,
        Closed::Broke(side, fault) => ending_of_fault(side, fault),
        Closed::Idle(_) => Ending::IdleTimeout,
        Closed::HalfClosed(_) => Ending::HalfCloseTimeout,
        Closed::Cut => record.cut_ending(),
        Closed::AtRest => record.ending_at_rest(),
    }
}

/// How long the peers of a session that ends at rest ([`Closed::AtRest`]: no bytes are on their way) have to close
/// their connections.
const REST_TIME_MAX: Duration = Duration::from_secs(5);

/// Sends a FIN to both peers, and waits until they have closed. If they do not close in time, or the session is cut,
/// resets the connections that are still open. Then closes the entry; a cut replaces `ending`.
async fn close_at_rest(ends: Arc<Endpoints>, entry: Entry, ending: Ending) {
    ends.finish();
    let both = async {
        read_closed(&ends.client).await;
        read_closed(&ends.server).await;
    };
    let record = Arc::clone(entry.record());
    let ending = tokio::select! {
        biased;
        cut = record.until_cut() => {
            ends.reset_when_closed();
            cut
        }
        ended = timeout(REST_TIME_MAX, both) => {
            if ended.is_err() {
                ends.reset_when_closed();
            }
            ending
        }
    };
    drop(ends);
    entry.close(ending);
}

/// The input of a relay besides the sockets: the first bytes for the server, and the TLS that ends or begins here.
enum ToRelay {
    Plain(Vec<u8>),
    Tls(Box<TlsToRelay>),
}

struct TlsToRelay {
    client: Option<Box<TlsConnection>>,
    server: Option<Box<TlsConnection>>,
    first: Vec<u8>,
}

/// Relays a session with TLS that ends or begins here, on at least one side. An error of that TLS is kept for the log.
async fn relay_over_tls<'a>(
    ends: &Endpoints,
    to_relay: Box<TlsToRelay>,
    limits: RelayLimits,
    entry: &Entry,
    throttle: Option<Box<Throttle>>,
    end_request: impl Future<Output = EndRequest<'a>> + Unpin,
) -> Closed {
    let TlsToRelay { client, server, first } = *to_relay;
    let side = |socket, tls: Option<Box<TlsConnection>>| TlsSide {
        socket,
        tls: tls.map(|connection| *connection),
    };
    let (client, server) = (side(&ends.client, client), side(&ends.server, server));
    let (closed, error) = relay_tls(client, server, first, limits, entry.traffic(), throttle, end_request).await;
    if let Some(error) = error {
        entry.info().tls_mut().error = Some(error_word(&error));
    }
    closed
}
