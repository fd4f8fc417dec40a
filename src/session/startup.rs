//! What passes between a PostgreSQL client and its server before bytes are relayed: the server's answer to an SSLRequest.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::listener_state::ListenerState;
use super::postgres::requires_tls;
use super::refusal::{Refusal, reply};
use super::steps::{Connected, record_sniffed};
use crate::account::Entry;
use crate::dial::DialError;
use crate::refuse::{PostgresError, Reply};
use crate::sniff::alert::Alert;
use crate::sniff::{TlsAnswer, sniff_postgres};
use crate::socket::Fault;

/// Sends the client's SSLRequest to its server, and the answer to the client. After an `N` the client goes on in the clear:
/// reads its StartupMessage, which is to be sent first then.
///
/// # Errors
/// The server does not answer in time, or something comes behind its answer (CVE-2021-23222); or what the client sends is
/// not valid, or TLS is required.
pub(super) async fn relay_tls_answer(
    client: &mut TcpStream,
    mut connected: Connected,
    state: &ListenerState,
    at: Instant,
    entry: &mut Entry,
) -> Result<Connected, Refusal> {
    let server = &mut connected.socket;
    let ask = async {
        server.write_all(&connected.first).await?;
        let mut answer = [0; 2]; // with room for what must not come
        let bytes = server.read(&mut answer).await?;
        entry.traffic().down.add(bytes);
        io::Result::Ok((answer, bytes))
    };
    let asked = timeout_at(at + state.plan.sniff.hello_timeout, ask).await;
    connected.first = Vec::new();
    let Ok(Ok((answer, bytes))) = asked else {
        return Err(Refusal::DialError(DialError::ConnectFailed, Reply::Close));
    };
    if bytes > 1 && matches!(answer[0], b'S' | b'N') {
        return Err(Refusal::ServerRefusedTls(Reply::Close));
    }
    let sent = client.write_all(&answer[..bytes]).await;
    sent.map_err(|error| Refusal::DialError(DialError::ClientFault(Fault::of(&error)), Reply::Close))?;
    if answer[..bytes] != *b"N" {
        return Ok(connected); // an end of the stream, or an error, is relayed as it is
    }
    let sniffed = sniff_postgres(client, &state.plan.sniff, at, &state.hello_memory, TlsAnswer::Given).await;
    let sniffed = sniffed.map_err(|error| {
        entry.traffic().up.add(error.bytes_read);
        Refusal::Sniff(error)
    })?;
    record_sniffed(&sniffed, state, entry);
    if sniffed.startup().is_some() && requires_tls(&state.plan) {
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
    Ok(connected)
}
