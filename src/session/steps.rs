//! The results of a session's steps, up to the connection to its server, and the steps `sniff` and `route`. Each step
//! consumes the result of the step before.
//!
//! A step that many sessions take is not an `async fn` if it takes `self` apart and then waits: its future would hold
//! `self` beside its parts, and a client that is slow to send its ClientHello must stay cheap.

use std::io;

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::fallback::note_fallback;
use super::handshake_settings::HandshakeSettings;
use super::leased_server::LeasedServer;
use super::listener_state::ListenerState;
use super::postgres::{requires_tls, tls_answer};
use super::record_sniffed::{count_unsniffed, record_sniffed};
use super::redial::Redial;
use super::refusal::{Refusal, reply};
use crate::account::Entry;
use crate::addr::{ClientAddr, ListenAddr};
use crate::guard::GuardId;
use crate::live::LivePool;
use crate::name::ServerName;
use crate::plan::PoolId;
use crate::proxy_protocol::{ClientInfo, ProxyAddresses, ProxyHeader, Version, header};
use crate::refuse::{PostgresError, Reply, alert_without_route};
use crate::relay::RelayLimits;
use crate::route::{RouteChoice, RouteInput};
use crate::sniff::alert::Alert;
use crate::sniff::hello::Hello;
use crate::sniff::postgres::CancelKey;
use crate::sniff::{FirstBytes, PostgresOpening, Sniffed, TlsStart, sniff, sniff_postgres};
use crate::socket::{Fault, Keepalive};
use crate::tls::{TlsConnection, TlsSummary};

/// A client that was accepted, with an entry in the ledger.
pub(super) struct Opened<'a> {
    pub(super) client: &'a mut TcpStream,
    pub(super) state: &'a ListenerState,
    /// When the client was accepted.
    pub(super) at: Instant,
    pub(super) entry: &'a mut Entry,
}

/// A client with everything that its listener's routes need to know of it.
pub(super) struct Identified<'a> {
    pub(super) client: &'a TcpStream,
    pub(super) state: &'a ListenerState,
    pub(super) at: Instant,
    pub(super) entry: &'a mut Entry,
    /// `None`: the routes do not depend on the first bytes. Only a PROXY header, and what came with it, may have been
    /// read.
    pub(super) sniffed: Option<Sniffed>,
}

/// A client that has a pool.
pub(super) struct Routed<'a> {
    pub(super) client: &'a TcpStream,
    pub(super) state: &'a ListenerState,
    pub(super) entry: &'a mut Entry,
    pub(super) pool: PoolId,
    /// The guards of the route.
    pub(super) guards: &'a [GuardId],
    pub(super) sniffed: Option<Sniffed>,
    /// The settings of its TLS handshake; `None`: no TLS is terminated here, or the handshake is complete.
    pub(super) handshake: Option<HandshakeSettings<'a>>,
    /// The client's TLS and its ClientHello, if its TLS is terminated here and the handshake is complete.
    pub(super) tls: Option<(Box<TlsConnection>, Hello)>,
}

/// A connection to a server for the client.
pub(super) struct Connected {
    pub(super) socket: TcpStream,
    pub(super) server: LeasedServer,
    /// The first bytes for the server: the PROXY header, unless it was sent already, then the bytes that were read from
    /// the client.
    pub(super) first: Vec<u8>,
    /// The TLS of the client, if it is terminated here.
    pub(super) client_tls: Option<Box<TlsConnection>>,
    /// The TLS with the server, if it begins here.
    pub(super) server_tls: Option<Box<TlsConnection>>,
    pub(super) relay: RelayLimits,
    /// The keepalive of `socket`, which is not set yet. A Unix socket has none.
    pub(super) keepalive: Option<Keepalive>,
    /// Whether `first` ends with an SSLRequest of PostgreSQL, which the server is to answer.
    pub(super) has_ssl_request: bool,
    /// For a client of PostgreSQL: what is needed to connect the client to a server again.
    pub(super) redial: Option<Box<Redial>>,
}

impl<'a> Opened<'a> {
    /// Reads the ClientHello if it is needed ([`RouteTable::needs_hello`](crate::route::RouteTable::needs_hello)), or
    /// the first packets of a PostgreSQL client. On other listeners nothing is read: if the server speaks first, the
    /// client sends nothing before that.
    pub(super) fn sniff(self) -> impl Future<Output = Result<Identified<'a>, Refusal>> {
        let Self {
            client,
            state,
            at,
            entry,
        } = self;
        async move {
            let plan = &state.plan;
            let is_postgres = plan.protocol.is_postgres();
            let sniffed = if is_postgres || plan.routes.needs_hello() {
                let first = take_read_ahead(entry);
                let sniffed = if is_postgres {
                    let answer = tls_answer(plan);
                    sniff_postgres(client, &plan.sniff, at, &state.hello_memory, first, answer)
                        .boxed()
                        .await
                } else {
                    sniff(client, &plan.sniff, at, &state.hello_memory, first).await
                };
                entry.sniff_finished();
                let sniffed = sniffed.map_err(|error| count_unsniffed(error, entry))?;
                record_sniffed(&sniffed, state, entry);
                Some(sniffed)
            } else {
                None
            };
            Ok(Identified {
                client,
                state,
                at,
                entry,
                sniffed,
            })
        }
    }
}

impl<'a> Identified<'a> {
    /// The key in a CancelRequest, if that is what the client sent.
    pub(super) fn cancel_key(&self) -> Option<CancelKey> {
        match self.sniffed.as_ref()?.postgres()? {
            PostgresOpening::Cancel(key) => Some(key.clone()),
            _ => None,
        }
    }

    /// Finds the pool that the listener's routes give the client.
    pub(super) fn route(self) -> Result<Routed<'a>, Refusal> {
        self.route_with_hello(None)
    }

    /// As [`Self::route`]. `terminated`: the ClientHello of a PostgreSQL client whose handshake was completed here;
    /// `sniffed` is then its first packet within TLS.
    pub(super) fn route_with_hello(self, terminated: Option<&Hello>) -> Result<Routed<'a>, Refusal> {
        let Self {
            client,
            state,
            at,
            entry,
            sniffed,
        } = self;
        let hello = terminated.or(sniffed.as_ref().and_then(Sniffed::hello));
        let startup = sniffed.as_ref().and_then(Sniffed::startup);
        let alert = |hello: Option<&Hello>| hello.map_or(Alert::AccessDenied, alert_without_route);
        let reply = |error| reply(sniffed.as_ref(), state.plan.protocol, alert, error);
        if startup.is_some() && terminated.is_none() && requires_tls(&state.plan) {
            entry.info().detail = Some("tls_required");
            return Err(Refusal::Refused(reply(PostgresError::TlsRequired)));
        }
        let known = RouteInput::of(entry.info().client(), hello, startup);
        let routes = &state.plan.routes;
        let (meant, guards, mode, alpn) = match routes.find(&known) {
            RouteChoice::Route { index, route, pool } => {
                entry.info().route = Some(state.count_route(index));
                (*pool, &*route.guards, route.tls, &*route.alpn)
            }
            RouteChoice::Default(pool) => (*pool, &[][..], routes.default_tls(), &[][..]),
            RouteChoice::Refused { index, .. } => {
                entry.info().route = Some(state.count_route(index));
                return Err(Refusal::Refused(reply(PostgresError::Refused)));
            }
            RouteChoice::NoRoute => return Err(Refusal::NoRoute(reply(PostgresError::NoRoute))),
        };
        let pool = state.pools.serving(meant, Instant::now());
        enter_pool(state, pool, meant, sniffed.as_ref(), entry)?;
        let handshake = match terminated {
            None => HandshakeSettings::new(state, mode, alpn, at),
            Some(_) => None, // the handshake is complete
        };
        Ok(Routed {
            client,
            state,
            entry,
            pool,
            guards,
            sniffed,
            handshake,
            tls: None,
        })
    }
}

/// Records that the client goes to this pool: the one that was meant, or its fallback.
///
/// # Errors
/// See [`check_direct_tls`].
pub(super) fn enter_pool(
    state: &ListenerState,
    pool: PoolId,
    meant: PoolId,
    sniffed: Option<&Sniffed>,
    entry: &mut Entry,
) -> Result<(), Refusal> {
    if pool != meant {
        note_fallback(entry, &state.pools[meant]);
    }
    check_direct_tls(&state.pools[pool], sniffed, entry)?;
    entry.pool_chosen(state.pools[pool].name());
    Ok(())
}

/// Refuses a PostgreSQL client that begins with its ClientHello if the servers of its pool do not expect that.
fn check_direct_tls(pool: &LivePool, sniffed: Option<&Sniffed>, entry: &Entry) -> Result<(), Refusal> {
    match sniffed.and_then(Sniffed::postgres) {
        Some(PostgresOpening::Tls(hello, TlsStart::Direct)) if !pool.plan().direct_tls => {
            entry.info().detail = Some("direct_tls");
            let alert = Alert::NoApplicationProtocol.record(Some(hello.newest_version));
            Err(Refusal::Refused(Reply::Alert(alert)))
        }
        _ => Ok(()),
    }
}

/// Takes the bytes that were read after a PROXY header.
pub(super) fn take_read_ahead(entry: &Entry) -> Option<Box<FirstBytes>> {
    entry.info().extras.as_mut()?.first.take()
}

/// Whether bytes were read after a PROXY header and not taken yet.
pub(super) fn has_read_ahead(entry: &Entry) -> bool {
    entry
        .info()
        .extras
        .as_ref()
        .and_then(|extras| extras.first.as_ref())
        .is_some_and(|first| !first.as_slice().is_empty())
}

/// The PROXY header that the peer in front has sent.
pub(super) fn forwarded(entry: &Entry) -> Option<ProxyHeader> {
    entry.info().extras.as_ref()?.forwarded.as_deref().cloned()
}

/// A client's TLS that is terminated here.
#[derive(Clone, Copy)]
pub(super) struct ClientTls<'a> {
    pub(super) connection: &'a TlsConnection,
    pub(super) hello: &'a Hello,
    pub(super) summary: &'a TlsSummary,
}

/// The PROXY header for this client. A server that expects a header must not get a connection without one: it would
/// take the client's first bytes for the header, or trust our own address as the client's. So the session is refused if
/// `local` is an error, unless `forwarded` has TCP addresses, which are used instead.
///
/// `local` is our address on the client's connection. `hello` is the ClientHello of a client whose TLS is passed on;
/// `tls` is the client's TLS if it is terminated here. `forwarded` is the header that the peer in front has sent.
pub(super) fn proxy_header(
    version: Version,
    client: ClientAddr,
    local: io::Result<ListenAddr>,
    (hello, tls): (Option<&Hello>, Option<ClientTls<'_>>),
    forwarded: Option<&ProxyHeader>,
) -> Result<Vec<u8>, Refusal> {
    let local = match forwarded.map(|header| &header.addresses) {
        Some(ProxyAddresses::Tcp { local, .. }) => *local, // where the client wanted to go
        _ => local.map_err(|error| Refusal::NoLocalAddress(Fault::classify(&error)))?,
    };
    let name = tls.map(|tls| tls.hello).or(hello).and_then(Hello::server_name);
    let info = ClientInfo {
        client,
        local,
        authority: name.map(ServerName::as_str),
        alpn: match tls {
            Some(tls) => tls.connection.negotiated().alpn_protocol(),
            None => hello.and_then(|hello| hello.alpn.iter().next()),
        },
        tls: tls.map(|tls| tls.summary),
        forwarded,
    };
    Ok(header(version, &info))
}

#[cfg(test)]
mod tests;
