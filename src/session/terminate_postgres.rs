//! TLS termination for PostgreSQL clients. The ClientHello decides whether TLS is terminated here. The packets within
//! TLS decide where the client goes, as packets in the clear do for other clients.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::cancel::cancel;
use super::handshake_settings::HandshakeSettings;
use super::listener_state::ListenerState;
use super::record_sniffed::{count_unsniffed, record_sniffed};
use super::refusal::Refusal;
use super::steps::{Connected, Identified, Routed};
use super::terminate::complete_handshake;
use crate::account::Entry;
use crate::refuse::Reply;
use crate::relay::{SideStream, TlsSide};
use crate::route::RouteInput;
use crate::sniff::alert::Alert;
use crate::sniff::hello::Hello;
use crate::sniff::postgres::ALPN;
use crate::sniff::{PostgresOpening, Sniffed, TlsAnswer, TlsStart, sniff_postgres};
use crate::tls::{HandshakeError, TlsConnection, error_word};

/// The settings of the handshake with a client whose TLS is terminated here; `None`: the client has not begun TLS, its
/// TLS is passed on, or the routes will refuse the client.
///
/// # Errors
/// The client's TLS would be terminated here, but the client begins with its ClientHello and does not offer the ALPN
/// protocol of PostgreSQL. It may be a client of another protocol, redirected here by an attacker. A PostgreSQL server
/// would refuse it, too.
pub(super) fn find_handshake_settings<'a>(
    identified: &Identified<'a>,
) -> Result<Option<HandshakeSettings<'a>>, Refusal> {
    let Some(PostgresOpening::Tls(hello, start)) = identified.sniffed.as_ref().and_then(Sniffed::postgres) else {
        return Ok(None);
    };
    let state = identified.state;
    let input = RouteInput::of(identified.entry.info().client(), Some(hello), None);
    let Some((mode, alpn)) = state.plan.routes.tls_before_startup(&input) else {
        return Ok(None);
    };
    let handshake = HandshakeSettings::new(state, mode, alpn, identified.at);
    if handshake.is_some() && *start == TlsStart::Direct && hello.alpn.iter().all(|offered| offered != ALPN) {
        identified.entry.info().detail = Some("direct_tls_without_alpn");
        let alert = Alert::NoApplicationProtocol.record(Some(hello.newest_version));
        return Err(Refusal::Refused(Reply::Alert(alert)));
    }
    Ok(handshake)
}

/// Completes the handshake, finds out where the client wants to go, and connects to a server there.
pub(super) async fn connect_decrypted(
    identified: Identified<'_>,
    handshake: HandshakeSettings<'_>,
) -> Result<Connected, Refusal> {
    let Identified {
        client,
        state,
        at,
        entry,
        sniffed,
    } = identified;
    let (tls, hello) = complete_handshake(client, entry, handshake, sniffed).await?;
    let (tls, first_packet) = read_first_packet(client, tls, state, at, entry).await;
    let mut tls = (tls, hello);
    let routed = match first_packet {
        Ok(first_packet) => route(client, first_packet, &tls, state, at, entry).await,
        Err(refusal) => Err(refusal),
    };
    match routed {
        Ok(mut routed) => {
            routed.tls = Some(tls);
            routed.connect().await
        }
        Err(refusal) => Err(refusal.within_tls(&mut tls.0)),
    }
}

/// Reads the first packet within TLS. Another request for TLS is an error there.
async fn read_first_packet(
    client: &TcpStream,
    tls: Box<TlsConnection>,
    state: &ListenerState,
    accepted_at: Instant,
    entry: &Entry,
) -> (Box<TlsConnection>, Result<Sniffed, Refusal>) {
    let limits = &state.plan.sniff;
    let mut stream = SideStream::new(TlsSide {
        socket: client,
        tls: Some(*tls),
    });
    let tls_answer = TlsAnswer::AlreadyDecided;
    let read = sniff_postgres(&mut stream, limits, accepted_at, &state.hello_memory, None, tls_answer);
    let sniffed = read.await;
    if let Some(error) = stream.take_error() {
        entry.info().tls_mut().error = Some(error_word(&error));
    }
    let sniffed = sniffed.map_err(|error| count_unsniffed(error, entry));
    // TLS may have to answer the client, for example its request for new keys.
    let is_in_time = timeout_at(accepted_at + limits.hello_timeout, stream.flush())
        .await
        .is_ok();
    let sniffed = match sniffed {
        Ok(_) if !is_in_time => Err(Refusal::Handshake(HandshakeError::TooSlow)),
        sniffed => sniffed,
    };
    let tls = stream.into_tls().expect("the stream was created with TLS");
    (Box::new(tls), sniffed)
}

async fn route<'a>(
    client: &'a TcpStream,
    first_packet: Sniffed,
    tls: &(Box<TlsConnection>, Hello),
    state: &'a ListenerState,
    at: Instant,
    entry: &'a mut Entry,
) -> Result<Routed<'a>, Refusal> {
    record_sniffed(&first_packet, state, entry);
    let identified = Identified {
        client,
        state,
        at,
        entry,
        sniffed: Some(first_packet),
    };
    if let Some(key) = identified.cancel_key() {
        return Err(cancel(client, key, state, identified.entry, Some(tls)).await);
    }
    identified.route_with_hello(Some(&tls.1))?.pass_guards()
}
