//! The step from a pool to a connection to one of its servers.

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::fallback::{fallback_after, note_stand_in};
use super::leased_server::LeasedServer;
use super::postgres::agree_on_tls;
use super::redial::Redial;
use super::refusal::{Refusal, encrypted, reply};
use super::steps::{
    ClientTls, Connected, Routed, enter_pool, forwarded, has_read_ahead, proxy_header, take_read_ahead,
};
use crate::account::Entry;
use crate::dial::{Attempt, ConnectOptions, DialClient, DialError, DialTls, Dialled, LastAck, Progress, Search, dial};
use crate::live::LivePool;
use crate::plan::ListenerPlan;
use crate::refuse::{PostgresError, Reply};
use crate::sniff::alert::Alert;
use crate::sniff::hello::Hello;
use crate::sniff::{FirstBytes, PostgresOpening, Sniffed, TlsStart};
use crate::socket::local_address;
use crate::tls::{ClientChoice, HandshakeError, TlsConnection, TlsSummary, error_chain, error_text, error_word};
use crate::units::format_duration;

impl Routed<'_> {
    /// Connects to a server of the pool or of its fallback. Every attempt is accounted for as soon as it is over,
    /// except one that ends because the client's connection failed.
    #[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
    pub(super) fn connect(mut self) -> impl Future<Output = Result<Connected, Refusal>> {
        async move {
            let (mut dialled, mut header, search) = Box::pin(self.dial()).await?; // boxed: larger than what follows
            let pool = &self.state.pools[self.pool];
            note_stand_in(self.entry, pool, dialled.lease.server());
            let server = LeasedServer::new(dialled.lease, pool);
            if let Some(connection) = &dialled.tls {
                self.entry.info().tls_mut().server = Some(TlsSummary::new(connection.negotiated()));
                header.clear(); // it was sent
            }
            let postgres = self.sniffed.as_ref().and_then(Sniffed::postgres);
            let redial = postgres.map(|_| Box::new(Redial::new(self.pool, header.clone(), search)));
            let has_ssl_request = matches!(postgres, Some(PostgresOpening::SslRequest));
            if let Some(PostgresOpening::Tls(_, TlsStart::Agreed)) = postgres {
                let (sniffed, protocol) = (self.sniffed.as_ref(), self.state.plan.protocol);
                let reply = |alert| reply(sniffed, protocol, |_| alert, PostgresError::NoServer);
                let (socket, within) = (&mut dialled.socket, pool.plan().dial.connect.timeout);
                agree_on_tls(socket, &header, &server, within, self.client, self.entry, reply)
                    .boxed()
                    .await?;
                header.clear();
            }
            let mut first = take_read(self.sniffed.take(), self.entry);
            if !header.is_empty() {
                header.extend(first);
                first = header;
            }
            Ok(Connected {
                socket: dialled.socket,
                server,
                first,
                client_tls: self.tls.take().map(|(connection, _)| connection),
                server_tls: dialled.tls,
                relay: self.state.plan.relay,
                keepalive: pool.plan().dial.connect.socket.keepalive,
                has_ssl_request,
                redial,
            })
        }
    }

    /// Connects to a server of the pool. If the pool has become unusable since it was chosen, goes on with its
    /// fallback, which has a queue of its own. Also returns the PROXY header for the server (empty if the server
    /// expects none), and how far the search has come.
    async fn dial(&mut self) -> Result<(Dialled, Vec<u8>, Search), Refusal> {
        let Self {
            client,
            state,
            entry,
            pool,
            sniffed,
            tls,
            ..
        } = self;
        let (protocol, sniffed) = (state.plan.protocol, sniffed.as_ref());
        let has_hello = tls.is_some() || sniffed.is_some_and(|sniffed| sniffed.hello().is_some());
        // Whether the first bytes for the server, if there are some, are sent by the relay right after connecting.
        let relays_at_once = tls.is_none() && !protocol.is_postgres();
        // `may_half_close`: a client that speaks TLS or the protocol of a database, and ends its stream before it has a
        // server, has left.
        let mut dial_client = DialClient {
            socket: client,
            address: entry.info().client(),
            may_half_close: !protocol.is_database() && !has_hello,
            awaits_answer: protocol.is_postgres(),
            last_ack: LastAck::AtOnce,
        };
        // Bounded: fallbacks form no cycle.
        loop {
            let live = &state.pools[*pool];
            let plan = &live.plan().dial;
            let header = header_for(&plan.connect, &state.plan, client, entry, sniffed, tls.as_ref())?;
            let dial_tls = state.tls_with(live).map(|pool_tls| DialTls {
                tls: pool_tls,
                client: client_choice(tls.as_ref()),
                header: &header,
            });
            let has_bytes = sniffed.is_some() || !header.is_empty() || has_read_ahead(entry);
            dial_client.last_ack = LastAck::delayed_if(has_bytes && relays_at_once && dial_tls.is_none());
            let mut search = Search::default();
            // This future and the one of `Self::dial` have a box each. glibc reuses a freed block of up to 1,032 bytes
            // for allocations of the same size. One block for both would be larger, and once freed, it would be an
            // unused gap in memory.
            let dialling = Box::pin(dial(
                live,
                plan,
                dial_tls.as_ref(),
                dial_client,
                &mut search,
                |progress: Progress<'_>| record_progress(&progress, live.name(), entry),
            ));
            let failure = match dialling.await {
                Ok(dialled) => return Ok((dialled, header, search)),
                Err(failure) => failure,
            };
            let Some(fallback) = fallback_after(state, *pool, failure) else {
                let error = postgres_error(failure, live);
                let reply = reply(sniffed, protocol, |_| Alert::InternalError, error);
                return Err(Refusal::DialError(failure, reply_over(reply, tls.as_mut())));
            };
            enter_pool(state, fallback, *pool, sniffed, entry)?;
            *pool = fallback;
        }
    }
}

/// The error that a client of PostgreSQL gets if, for this reason, acequia could not connect to a server.
fn postgres_error(reason: DialError, pool: &LivePool) -> PostgresError {
    match reason {
        // The client has waited for a server to become usable.
        DialError::QueueTimeout if !pool.is_usable(Instant::now()) => PostgresError::NoServer,
        DialError::ServersFull | DialError::QueueFull | DialError::QueueTimeout => PostgresError::Limited,
        _ => PostgresError::NoServer,
    }
}

/// The form of a reply for a client whose TLS may be terminated here.
fn reply_over(reply: Reply, tls: Option<&mut (Box<TlsConnection>, Hello)>) -> Reply {
    match (reply, tls) {
        // Within TLS, a close would look like an empty answer.
        (Reply::Close, Some(_)) => Reply::Reset,
        (reply, Some((connection, _))) => encrypted(reply, connection),
        (reply, None) => reply,
    }
}

/// Records the progress of dialling: waits in the queue, and where each attempt begins and ends.
pub(super) fn record_progress(progress: &Progress<'_>, pool: &str, entry: &mut Entry) {
    match progress {
        Progress::Queued { position, is_asleep } => entry.joined_queue(*position, *is_asleep),
        Progress::Dequeued => entry.left_queue(),
        Progress::Trying(server) => entry.attempt_started(server),
        Progress::Ended(attempt) => {
            entry.attempt_finished(attempt.took, attempt.failure);
            // Kept for the log: why the last handshake failed.
            if let Some(HandshakeError::Tls(error)) = attempt.tls_error {
                let mut info = entry.info();
                let tls = info.tls_mut();
                tls.error = Some(error_word(error));
                tls.refusal = matches!(error, rustls::Error::InvalidCertificate(_)).then(|| error_text(error).into());
            }
            log_attempt(pool, attempt);
        }
    }
}

/// The bytes that were read from the client and that the server is to get.
fn take_read(sniffed: Option<Sniffed>, entry: &Entry) -> Vec<u8> {
    let read = sniffed.map(|sniffed| sniffed.first).or_else(|| {
        // These bytes came with the PROXY header of the peer in front, and are not counted yet. Sniffed bytes are
        // counted already.
        let after_header = *take_read_ahead(entry)?;
        entry.traffic().up.add(after_header.as_slice().len());
        Some(after_header)
    });
    read.map(FirstBytes::into_vec).unwrap_or_default()
}

/// The PROXY header for this client; empty if servers with these options expect none.
pub(super) fn header_for(
    connect: &ConnectOptions,
    listener: &ListenerPlan,
    client: &TcpStream,
    entry: &Entry,
    sniffed: Option<&Sniffed>,
    tls: Option<&(Box<TlsConnection>, Hello)>,
) -> Result<Vec<u8>, Refusal> {
    let Some(version) = connect.proxy_protocol else {
        return Ok(Vec::new());
    };
    let (address, local) = (entry.info().client(), local_address(client, listener.unix_address()));
    let forwarded = forwarded(entry);
    let info = entry.info();
    let tls = tls
        .zip(info.client_tls())
        .map(|((connection, hello), summary)| ClientTls {
            connection,
            hello,
            summary,
        });
    let hello = sniffed.and_then(Sniffed::hello);
    proxy_header(version, address, local, (hello, tls), forwarded.as_ref())
}

/// The name that a client has asked for and the protocol that was agreed with it, if its TLS is terminated here.
fn client_choice(tls: Option<&(Box<TlsConnection>, Hello)>) -> ClientChoice<'_> {
    tls.map_or_else(ClientChoice::default, |(connection, hello)| ClientChoice {
        name: hello.server_name(),
        protocol: connection.negotiated().alpn_protocol(),
    })
}

/// Logs an attempt that ejected its server or ended the ejection, and, at debug level, other failures.
fn log_attempt(pool: &str, attempt: &Attempt<'_>) {
    let server = &attempt.server.spec().label;
    let error = attempt.tls_error.map(|error| error_chain(error));
    match (attempt.failure, attempt.ejected_for) {
        (Some(failure), Some(back_off)) => {
            tracing::warn!(pool, %server, reason = failure.as_str(), error, back_off = format_duration(back_off), "server is ejected");
        }
        (Some(failure), None) => tracing::debug!(pool, %server, reason = failure.as_str(), error, "cannot connect"),
        (None, _) if attempt.ended_ejection => tracing::info!(pool, %server, "server is back"),
        (None, _) => {}
    }
}
