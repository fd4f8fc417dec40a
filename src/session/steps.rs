//! The steps of a session from accept to a connection to its server. Each consumes the one before.
//!
//! Those that wait are no `async fn`s: these would keep `self` beside its parts, and a client that is slow to send its
//! ClientHello must stay cheap.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::leased_server::LeasedServer;
use super::listener_state::ListenerState;
use super::postgres::{request_tls, requires_tls, tls_answer};
use super::refusal::{Refusal, reply};
use super::termination::Termination;
use crate::account::Entry;
use crate::addr::{ClientAddr, ListenAddr};
use crate::dial::{Attempt, Progress, dial};
use crate::guard::GuardId;
use crate::live::LivePool;
use crate::name::ServerName;
use crate::plan::PoolId;
use crate::proxy_protocol::{ClientInfo, ProxyHeader, ProxySource, Version, header};
use crate::refuse::{PostgresError, Reply, alert_without_route};
use crate::relay::RelayLimits;
use crate::route::{RouteChoice, RouteInput};
use crate::sniff::alert::Alert;
use crate::sniff::hello::{Hello, ProtocolList};
use crate::sniff::postgres::CancelKey;
use crate::sniff::{FirstBytes, PostgresOpening, Sniffed, TlsStart, sniff, sniff_postgres};
use crate::socket::Fault;
use crate::tls::{TlsConnection, TlsSummary};

/// A client that was accepted, with an entry in the ledger.
pub(super) struct Opened<'a> {
    pub(super) client: &'a mut TcpStream,
    pub(super) state: &'a ListenerState,
    pub(super) at: Instant,
    pub(super) entry: &'a mut Entry,
}

/// A client of which all is known that its listener's routes depend on.
pub(super) struct Identified<'a> {
    client: &'a TcpStream,
    state: &'a ListenerState,
    at: Instant,
    entry: &'a mut Entry,
    /// `None`: the routes do not depend on the first bytes, and none were read but a PROXY header and what came with it.
    sniffed: Option<Sniffed>,
}

/// A client that has a pool.
pub(super) struct Routed<'a> {
    pub(super) client: &'a TcpStream,
    pub(super) state: &'a ListenerState,
    pub(super) entry: &'a mut Entry,
    pool: &'a Arc<LivePool>,
    /// The guards of the route.
    pub(super) guards: &'a [GuardId],
    pub(super) sniffed: Option<Sniffed>,
    /// What its TLS handshake is made with; `None`: its TLS is passed on, or the handshake is complete.
    pub(super) termination: Option<Termination<'a>>,
    /// The TLS that ends here, its handshake complete; with the ClientHello.
    pub(super) tls: Option<(Box<TlsConnection>, Hello)>,
}

/// A connection to a server for the client.
pub(super) struct Connected {
    pub(super) socket: TcpStream,
    pub(super) server: LeasedServer,
    /// What the server gets before anything else: the PROXY header, and what was read of the client.
    pub(super) first: Vec<u8>,
    /// The TLS of the client, if it ends here.
    pub(super) client_tls: Option<Box<TlsConnection>>,
    pub(super) relay: RelayLimits,
    /// Whether `first` ends with an SSLRequest of PostgreSQL, which the server is to answer.
    pub(super) asks_server: bool,
}

impl<'a> Opened<'a> {
    /// Reads the ClientHello where a route depends on it, or what a client of PostgreSQL begins with. On other listeners
    /// nothing is read: a server may be the one to speak first, and its client then sends nothing before.
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
                let first = take_first(entry);
                let sniffed = if is_postgres {
                    let answer = tls_answer(plan);
                    // Boxed: the sessions of other listeners stay small.
                    Box::pin(sniff_postgres(
                        client,
                        &plan.sniff,
                        at,
                        &state.hello_memory,
                        first,
                        answer,
                    ))
                    .await
                } else {
                    sniff(client, &plan.sniff, at, &state.hello_memory, first).await
                };
                entry.sniff_finished();
                let sniffed = sniffed.map_err(|error| {
                    entry.traffic().up.add(error.bytes_read);
                    Refusal::Sniff(error)
                })?;
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

pub(super) fn record_sniffed(sniffed: &Sniffed, state: &ListenerState, entry: &Entry) {
    entry.traffic().up.add(sniffed.bytes_read());
    if let Some(request) = sniffed.stray_postgres_request() {
        entry.info().detail = Some(request);
        state.log_postgres_request(request);
    }
    if let Some(hello) = sniffed.hello() {
        let mut info = entry.info();
        info.has_hello = true;
        info.sni = hello
            .server_name()
            .map(ServerName::shared)
            .or_else(|| hello.raw_name.as_deref().map(Arc::from));
        info.ech = hello.ech;
        info.alpn = alpn_text(&hello.alpn);
    }
    if let Some(startup) = sniffed.startup() {
        entry.info().protocol.get_or_insert_default().startup = Some(startup.clone());
    }
}

/// The protocols offered, as text for the log: `h2,http/1.1`. Bounded, because it is kept as long as the session.
pub(super) fn alpn_text(alpn: &ProtocolList) -> Option<Box<str>> {
    const TEXT_BYTES_MAX: usize = 255;
    let mut text = String::new();
    for (number, name) in alpn.iter().enumerate() {
        let name = name.escape_ascii().to_string();
        if text.len() + name.len() > TEXT_BYTES_MAX {
            text.push_str(if number == 0 { "…" } else { ",…" });
            break;
        }
        text.push_str(if number == 0 { "" } else { "," });
        text.push_str(&name);
    }
    (!text.is_empty()).then(|| text.into())
}

/// The pool that serves for this one now: itself, or its fallback.
fn serving_pool<'a>(state: &'a ListenerState, pool: PoolId, entry: &Entry) -> &'a Arc<LivePool> {
    let serving = state.pools.serving(pool, Instant::now());
    if serving != pool {
        entry.info().fallback_from = Some(Arc::clone(state.pools[pool].fallback_origin()));
    }
    &state.pools[serving]
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
        let Self {
            client,
            state,
            at,
            entry,
            sniffed,
        } = self;
        let hello = sniffed.as_ref().and_then(Sniffed::hello);
        let startup = sniffed.as_ref().and_then(Sniffed::startup);
        let refused = |detail, reply| {
            entry.info().detail = Some(detail);
            Refusal::Refused(reply)
        };
        let reply = |error| reply(sniffed.as_ref(), state.plan.protocol, alert_without_route, error);
        if startup.is_some() && requires_tls(&state.plan) {
            return Err(refused("tls_required", reply(PostgresError::TlsRequired)));
        }
        let no_protocols = ProtocolList::default();
        let known = RouteInput {
            name: hello.and_then(|hello| hello.name.as_ref()),
            alpn: hello.map_or(&no_protocols, |hello| &hello.alpn),
            client: Some(entry.info().client),
            database: startup.map(|startup| &*startup.database),
            user: startup.map(|startup| &*startup.user),
        };
        let routes = &state.plan.routes;
        let (pool, guards, mode, alpn) = match routes.find(&known) {
            RouteChoice::Route { route, pool } => {
                entry.info().route = Some(Arc::clone(&route.name));
                (*pool, &*route.guards, route.tls, &*route.alpn)
            }
            RouteChoice::Default(pool) => (*pool, &[][..], routes.default_tls(), &[][..]),
            RouteChoice::Refused { route } => {
                entry.info().route = Some(Arc::clone(route));
                return Err(Refusal::Refused(reply(PostgresError::Refused)));
            }
            RouteChoice::NoRoute => return Err(Refusal::NoRoute(reply(PostgresError::NoRoute))),
        };
        let pool = serving_pool(state, pool, entry);
        let postgres = sniffed.as_ref().and_then(Sniffed::postgres);
        if let (Some(PostgresOpening::Tls(hello, TlsStart::Direct)), false) = (postgres, pool.plan().direct_tls) {
            let alert = Alert::NoApplicationProtocol.record(Some(hello.newest_version));
            return Err(refused("direct_tls", Reply::Alert(alert)));
        }
        entry.pool_chosen(pool.name());
        let deadline = at + state.plan.sniff.hello_timeout;
        Ok(Routed {
            client,
            state,
            entry,
            pool,
            guards,
            sniffed,
            termination: Termination::new(state.tls.as_ref(), mode, alpn, deadline),
            tls: None,
        })
    }
}

impl Routed<'_> {
    /// Connects to a server of the pool. Every attempt is accounted for as soon as it is over.
    pub(super) fn connect(self) -> impl Future<Output = Result<Connected, Refusal>> {
        let Self {
            client,
            state,
            entry,
            pool,
            guards: _,
            sniffed,
            termination: _,
            tls,
        } = self;
        async move {
            let address = entry.info().client;
            let mut first = header_for(pool, client, entry, sniffed.as_ref(), tls.as_ref())?;
            let on_progress = |progress: Progress<'_>| match progress {
                Progress::Trying(server) => entry.attempt_started(server),
                Progress::Ended(attempt) => {
                    entry.attempt_finished(attempt.took, attempt.failure);
                    log_attempt(pool.name(), &attempt);
                }
            };
            let told = |alert| match tls {
                // Within TLS that ends here there is no alert for it, and a close would look like an empty answer.
                Some(_) => Reply::Reset,
                None => {
                    let protocol = state.plan.protocol;
                    reply(sniffed.as_ref(), protocol, |_| alert, PostgresError::NoServer)
                }
            };
            // In a box of its own: a client that sends its ClientHello slowly does without. And glibc hands out freed blocks
            // of up to 1032 bytes again as they are; the holes of larger ones would stay between the sessions.
            let dialled = Box::pin(dial(pool, &pool.plan().dial, client, address, on_progress));
            let (mut socket, lease) = dialled
                .await
                .map_err(|reason| Refusal::DialError(reason, told(Alert::InternalError)))?;
            let postgres = sniffed.as_ref().and_then(Sniffed::postgres);
            if let Some(PostgresOpening::Tls(_, TlsStart::Agreed)) = postgres {
                Box::pin(request_tls(&mut socket, &first, pool.plan(), client, entry, told)).await?;
                first.clear();
            }
            let asks_server = matches!(postgres, Some(PostgresOpening::SslRequest));
            let read = sniffed.map(|sniffed| sniffed.first).or_else(|| {
                let behind = take_first(entry).map(|behind| *behind)?;
                entry.traffic().up.add(behind.as_slice().len());
                Some(behind)
            });
            first.extend(read.map(FirstBytes::into_vec).unwrap_or_default());
            Ok(Connected {
                socket,
                server: LeasedServer::new(lease, pool),
                first,
                client_tls: tls.map(|(connection, _)| connection),
                relay: state.plan.relay,
                asks_server,
            })
        }
    }
}

/// What was read behind a PROXY header.
pub(super) fn take_first(entry: &Entry) -> Option<Box<FirstBytes>> {
    entry.info().guards.as_mut()?.first.take()
}

/// The PROXY header of the peer in front.
pub(super) fn forwarded(entry: &Entry) -> Option<ProxyHeader> {
    entry.info().guards.as_ref()?.forwarded.as_deref().cloned()
}

/// The PROXY header for this client, if the servers of the pool expect one.
fn header_for(
    pool: &LivePool,
    client: &TcpStream,
    entry: &Entry,
    sniffed: Option<&Sniffed>,
    tls: Option<&(Box<TlsConnection>, Hello)>,
) -> Result<Vec<u8>, Refusal> {
    let Some(version) = pool.plan().dial.connect.proxy_protocol else {
        return Ok(Vec::new());
    };
    let (address, local) = (entry.info().client, client.local_addr());
    let tls = tls.map(|(connection, hello)| (&**connection, hello));
    let hello = sniffed.and_then(Sniffed::hello);
    proxy_header(version, address, local, (hello, tls), forwarded(entry).as_ref())
}

/// The PROXY header for this client. Servers that expect one must not get a connection without it: they would take the
/// client's first bytes for it, or trust our own address as the client's. So there is no session without `local`.
pub(super) fn proxy_header(
    version: Version,
    client: ClientAddr,
    local: io::Result<SocketAddr>,
    (hello, tls): (Option<&Hello>, Option<(&TlsConnection, &Hello)>),
    forwarded: Option<&ProxyHeader>,
) -> Result<Vec<u8>, Refusal> {
    let local = match forwarded.map(|header| &header.source) {
        Some(ProxySource::Tcp { local, .. }) => *local, // where the client wanted to go
        _ => ListenAddr::new(local.map_err(|error| Refusal::NoLocalAddress(Fault::of(&error)))?),
    };
    let summary = tls.map(|(connection, _)| TlsSummary::of(connection.negotiated()));
    let name = tls.map(|(_, hello)| hello).or(hello).and_then(Hello::server_name);
    let info = ClientInfo {
        client,
        local,
        authority: name.map(ServerName::as_str),
        alpn: match tls {
            Some((connection, _)) => connection.negotiated().alpn_protocol(),
            None => hello.and_then(|hello| hello.alpn.iter().next()),
        },
        tls: summary.as_ref(),
        forwarded,
    };
    Ok(header(version, &info))
}

/// Logs an attempt that changed the health of its server. Single failures are logged at debug level only.
fn log_attempt(pool: &str, attempt: &Attempt<'_>) {
    let server = &attempt.server.spec().label;
    match (attempt.failure, attempt.ejected_for) {
        (Some(failure), Some(back_off)) => {
            tracing::warn!(pool, %server, reason = failure.as_str(), ?back_off, "server is ejected");
        }
        (Some(failure), None) => tracing::debug!(pool, %server, reason = failure.as_str(), "cannot connect"),
        (None, _) if attempt.ended_ejection => tracing::info!(pool, %server, "server is back"),
        (None, _) => {}
    }
}

#[cfg(test)]
mod tests;
