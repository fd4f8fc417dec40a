//! What passes between a PostgreSQL client and its server before bytes are relayed: the server's answer to an SSLRequest,
//! and, in the clear, everything up to the key by which the session's queries are cancelled.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::cancel::cancel;
use super::listener_state::ListenerState;
use super::postgres::requires_tls;
use super::refusal::{Refusal, reply};
use super::steps::{Connected, record_sniffed};
use crate::account::Entry;
use crate::cancel::BackendReader;
use crate::dial::DialError;
use crate::refuse::{PostgresError, Reply};
use crate::relay::Side;
use crate::sniff::alert::Alert;
use crate::sniff::postgres::CancelKey;
use crate::sniff::{PostgresOpening, TlsAnswer, sniff_postgres};
use crate::socket::{Fault, close_cleanly_again, reset_when_closed};

/// How long the server's messages are read for the key; the session goes on without it. `authentication_timeout` of
/// PostgreSQL is 1 min.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(60);

/// How long one side may take to read what the other one sent during the login.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// The size of one read.
const READ_BYTES_MAX: usize = 4096;

/// Begins a session with a server that it is connected to, up to the point where bytes are only relayed, and enters it
/// where cancel requests look for it.
///
/// # Errors
/// The session ends before that.
pub(super) async fn start(
    client: &mut TcpStream,
    mut connected: Connected,
    state: &ListenerState,
    at: Instant,
    entry: &mut Entry,
) -> Result<Connected, Refusal> {
    if connected.asks_server {
        relay_tls_answer(client, &mut connected, state, at, entry).await?;
    }
    let is_clear = entry.info().startup().is_some();
    let key = match is_clear {
        true => relay_login(client, &mut connected, entry).await?,
        false => None,
    };
    if let Some(target) = connected.server.cancel_target() {
        let address = entry.info().client.ip();
        connected.server.keep(match key {
            Some(key) => state.cancels.enter_key(key, target),
            None => state.cancels.enter_client(&state.plan.name, address, target),
        });
    }
    Ok(connected)
}

/// Sends the client's SSLRequest to its server, and the answer to the client. After an `N` the client goes on in the clear:
/// reads its StartupMessage, which is to be sent first then.
///
/// # Errors
/// The server does not answer in time, or something comes behind its answer (CVE-2021-23222); or what the client sends is
/// not valid, or TLS is required.
async fn relay_tls_answer(
    client: &mut TcpStream,
    connected: &mut Connected,
    state: &ListenerState,
    at: Instant,
    entry: &mut Entry,
) -> Result<(), Refusal> {
    let first = std::mem::take(&mut connected.first);
    let server = &mut connected.socket;
    let ask = async {
        server.write_all(&first).await?;
        let mut answer = [0; 2]; // with room for what must not come
        let bytes = server.read(&mut answer).await?;
        io::Result::Ok((answer, bytes))
    };
    let Ok(Ok((answer, bytes))) = timeout_at(at + state.plan.sniff.hello_timeout, ask).await else {
        return Err(Refusal::DialError(DialError::ConnectFailed, Reply::Close));
    };
    entry.traffic().down.add(bytes);
    if bytes > 1 && matches!(answer[0], b'S' | b'N') {
        return Err(Refusal::ServerRefusedTls(Reply::Close));
    }
    let sent = client.write_all(&answer[..bytes]).await;
    sent.map_err(|error| Refusal::DialError(DialError::ClientFault(Fault::of(&error)), Reply::Close))?;
    if answer[..bytes] != *b"N" {
        return Ok(()); // an end of the stream, or an error, is relayed as it is
    }
    let sniffed = sniff_postgres(
        client,
        &state.plan.sniff,
        at,
        &state.hello_memory,
        None,
        TlsAnswer::Given,
    )
    .await;
    let sniffed = sniffed.map_err(|error| {
        entry.traffic().up.add(error.bytes_read);
        Refusal::Sniff(error)
    })?;
    record_sniffed(&sniffed, state, entry);
    if let Some(PostgresOpening::Cancel(key)) = sniffed.postgres() {
        return Err(cancel(client, key.clone(), state, entry).await);
    }
    if requires_tls(&state.plan) {
        entry.info().detail = Some("tls_required");
        let told = reply(
            Some(&sniffed),
            state.plan.protocol,
            |_| Alert::HandshakeFailure,
            PostgresError::TlsRequired,
        );
        return Err(Refusal::Refused(told));
    }
    connected.first = sniffed.first.into_vec();
    Ok(())
}

/// Relays the login of a session in the clear until the server is ready for its first query, and returns the key that it
/// sends before. Where that takes too long or too many bytes, or a side ends, the relay goes on from there.
///
/// # Errors
/// A connection broke. While this runs, the end of the session resets the server's connection.
async fn relay_login(
    client: &TcpStream,
    connected: &mut Connected,
    entry: &Entry,
) -> Result<Option<CancelKey>, Refusal> {
    let first = std::mem::take(&mut connected.first);
    let server = &connected.socket;
    reset_when_closed(server);
    send(server, &first, Side::Server).await?;
    let until = Instant::now() + LOGIN_TIME_MAX;
    let mut reader = BackendReader::default();
    let mut bytes = [0; READ_BYTES_MAX];
    let mut is_done = false;
    while !is_done {
        let side = tokio::select! {
            biased;
            _ = server.readable() => Side::Server,
            _ = client.readable() => Side::Client,
            () = sleep_until(until) => break,
        };
        let (from, traffic, to, other) = match side {
            Side::Server => (server, &entry.traffic().down, client, Side::Client),
            Side::Client => (client, &entry.traffic().up, server, Side::Server),
        };
        let count = match from.try_read(&mut bytes) {
            Ok(0) => break, // the relay reads it again
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(Refusal::Broke(side, Fault::of(&error))),
        };
        traffic.add(count);
        is_done = side == Side::Server && reader.advance(&bytes[..count]);
        send(to, &bytes[..count], other).await?;
    }
    close_cleanly_again(server);
    Ok(reader.into_key())
}

/// Sends all these bytes to one side.
async fn send(to: &TcpStream, mut bytes: &[u8], side: Side) -> Result<(), Refusal> {
    let sending = async {
        while !bytes.is_empty() {
            to.writable().await?;
            match to.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    match timeout(SEND_TIME_MAX, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Refusal::Broke(side, Fault::of(&error))),
        Err(_) => Err(Refusal::Broke(side, Fault::Lost)),
    }
}
