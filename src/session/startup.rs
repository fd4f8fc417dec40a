//! The start of a PostgreSQL session, up to the point where bytes are only relayed: the server's answer to an
//! SSLRequest and, if the packets can be read here, the login, in which the server sends the key that cancels the
//! session's queries.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::begin::{LOGIN_TIME_MAX, SEND_TIME_MAX, begin};
use super::cancel::cancel;
use super::listener_state::ListenerState;
use super::postgres::{
    TLS_REQUEST, TlsRequestError, ask_for_tls, requires_tls, unanswered_tls_refusal, unanswered_tls_reply,
};
use super::reconnect::{MovedOn, move_on};
use super::record_sniffed::{count_unsniffed, record_sniffed};
use super::redial::NotBegun;
use super::refusal::{Refusal, reply};
use super::steps::Connected;
use crate::account::Entry;
use crate::cancel::BackendReader;
use crate::dial::DialError;
use crate::refuse::{PostgresError, Reply};
use crate::relay::{Closed, Side, SideStream, TlsSide};
use crate::sniff::alert::Alert;
use crate::sniff::postgres::{CancelKey, InvalidPacket};
use crate::sniff::{PostgresOpening, SniffError, SniffFailure, TlsAnswer, sniff_postgres};
use crate::socket::{Fault, close_cleanly_again, has_unread, reset_when_closed};
use crate::tls::error_word;

/// Bytes of the client that are relayed before its login counts as over. This is more than the longest answer to a
/// request for authentication (`PG_MAX_AUTH_TOKEN_LENGTH` of PostgreSQL, 64 KiB) with its framing. Like
/// [`BACKEND_BYTES_MAX`](crate::cancel::BACKEND_BYTES_MAX), it bounds the bytes that escape the `bandwidth` of a guard.
const CLIENT_BYTES_MAX: usize = 80 << 10;

/// The size of one read.
const READ_BYTES_MAX: usize = 4096;

/// Begins a session with the server that it is connected to, up to the point where bytes are only relayed. If the pool
/// is still in force, enters the session in the table for cancel requests.
///
/// # Errors
/// The session ends before that point.
pub(super) async fn start(
    client: &mut TcpStream,
    mut connected: Connected,
    state: &ListenerState,
    entry: &mut Entry,
) -> Result<Connected, Refusal> {
    if connected.has_ssl_request {
        connected = relay_tls_answer(client, connected, state, entry).await?;
    }
    let can_read_packets = entry.info().startup().is_some();
    let key;
    if can_read_packets {
        (connected, key) = log_in(client, connected, state, entry).await?;
    } else {
        key = None;
        // After an SSLRequest, `relay_tls_answer` has called `record_begun` if the server has answered.
        if !connected.has_ssl_request {
            connected.server.record_begun();
        }
    }
    connected.redial = None;
    if let Some(target) = connected.server.cancel_target() {
        let address = entry.info().client().host();
        connected.server.keep_cancel_entry(match key {
            Some(key) => state.cancels.enter_key(key, target),
            None => state.cancels.enter_client(&state.plan.name, address, target),
        });
    }
    Ok(connected)
}

/// Begins a session whose StartupMessage is known, and relays its login. Returns the key that cancels its queries, if
/// the server has sent one.
///
/// # Errors
/// Those of [`begin`] and [`relay_login`].
async fn log_in(
    client: &TcpStream,
    connected: Connected,
    state: &ListenerState,
    entry: &mut Entry,
) -> Result<(Connected, Option<CancelKey>), Refusal> {
    let (mut connected, answer) = begin(client, connected, state, entry).await?;
    let key = match answer {
        Ok(answer) => relay_login(client, &mut connected, &answer, entry).await,
        Err(fault) => Err(Refusal::Broke(Side::Server, fault)),
    };
    match &key {
        Ok(Some(_)) => connected.server.record_begun(), // changes nothing if `begin` has recorded it
        Err(Refusal::Broke(side, fault)) => {
            connected.server.report(client, Closed::Broke(*side, *fault), entry);
        }
        Ok(None) | Err(_) => {}
    }
    Ok((connected, key?))
}

/// Sends the client's SSLRequest to its server, and the answer to the client. After an `N` the client goes on in the
/// clear: its StartupMessage is read, and becomes the first bytes for the server. The server's answer and then the
/// StartupMessage may take `hello_timeout` each. This time does not count from accept, because the client may have
/// waited in a queue.
///
/// # Errors
/// Those of [`ask_a_server`] and [`read_in_the_clear`]. Or the server does not answer in time, its connection broke, or
/// bytes follow its answer (CVE-2021-23222). Or the client sent bytes before the answer (CVE-2021-23214), or is gone.
/// Or TLS is required, and the server answers with an error.
async fn relay_tls_answer(
    client: &mut TcpStream,
    mut connected: Connected,
    state: &ListenerState,
    entry: &mut Entry,
) -> Result<Connected, Refusal> {
    entry.info().detail = Some(TLS_REQUEST);
    let asked;
    (connected, asked) = ask_a_server(client, connected, state, entry).await?;
    let (answer, bytes) =
        asked.map_err(|why| unanswered_tls_refusal(&why, &connected.server, client, entry, unanswered_tls_reply()))?;
    entry.info().detail = None;
    let answer = &answer[..bytes];
    match answer {
        [b'S' | b'N', _, ..] => return Err(Refusal::ServerRefusedTls(Reply::Close)),
        [b'S' | b'N'] if has_unread(client) => return Err(smuggled()),
        [b'S' | b'N'] | [] => {}
        // The beginning of an error message. The rest is not relayed: no session in the clear may follow.
        error if requires_tls(&state.plan) => {
            return Err(Refusal::ServerRefusedTls(Reply::Message(error.to_vec())));
        }
        _ => {}
    }
    let sent = client.write_all(answer).await;
    sent.map_err(|error| Refusal::DialError(DialError::ClientFault(Fault::classify(&error)), Reply::Close))?;
    match answer {
        b"N" => connected.first = read_in_the_clear(client, state, entry).await?,
        [] => {} // the relay reads the end of the stream again
        // An `S`, or the beginning of an error message: what the server sends next is not read here.
        _ => connected.server.record_begun(),
    }
    Ok(connected)
}

/// The client has sent bytes before its request for TLS was answered (CVE-2021-23214).
fn smuggled() -> Refusal {
    Refusal::Sniff(SniffError {
        reason: SniffFailure::Packet(InvalidPacket::Smuggled),
        bytes_read: 0,
        is_tls: false,
    })
}

/// Reads the StartupMessage of a client whose server does not speak TLS. Returns the first bytes for the server.
///
/// # Errors
/// The client has left, or its packet is invalid or late, or is a request to cancel a query. Or TLS is required.
async fn read_in_the_clear(
    client: &mut TcpStream,
    state: &ListenerState,
    entry: &mut Entry,
) -> Result<Vec<u8>, Refusal> {
    let sniffed = sniff_postgres(
        client,
        &state.plan.sniff,
        Instant::now(),
        &state.hello_memory,
        None,
        TlsAnswer::AlreadyDecided,
    )
    .await;
    let sniffed = sniffed.map_err(|error| count_unsniffed(error, entry))?;
    record_sniffed(&sniffed, state, entry);
    if let Some(PostgresOpening::Cancel(key)) = sniffed.postgres() {
        return Err(cancel(client, key.clone(), state, entry, None).await);
    }
    if requires_tls(&state.plan) {
        entry.info().detail = Some("tls_required");
        let reply = reply(
            Some(&sniffed),
            state.plan.protocol,
            |_| Alert::HandshakeFailure,
            PostgresError::TlsRequired,
        );
        return Err(Refusal::Refused(reply));
    }
    Ok(sniffed.first.into_vec())
}

/// The answer to an SSLRequest, and how many bytes of it are valid. See [`ask_for_tls`].
type TlsAnswerBytes = Result<([u8; 2], usize), TlsRequestError>;

/// Sends the client's SSLRequest to its server. If the server ends the connection without an answer, the server that
/// [`move_on`] connects to gets the request, unless the session stays. Returns the answer.
///
/// # Errors
/// See [`move_on`].
async fn ask_a_server(
    client: &TcpStream,
    mut connected: Connected,
    state: &ListenerState,
    entry: &mut Entry,
) -> Result<(Connected, TlsAnswerBytes), Refusal> {
    let (first, within) = (std::mem::take(&mut connected.first), state.plan.sniff.hello_timeout);
    loop {
        let asked = ask_for_tls(&mut connected.socket, &first, within, entry).await;
        let fault = match &asked {
            Ok((_, 0)) | Err(TlsRequestError::Closed) => None,
            Err(TlsRequestError::Broke(error)) => Some(Fault::classify(error)),
            Ok(_) | Err(TlsRequestError::Late) => return Ok((connected, asked)),
        };
        let why = NotBegun::Ended {
            fault,
            partial: Vec::new(),
        };
        connected = match move_on(connected, &why, client, state, entry).await? {
            MovedOn::Moved(connected) => connected,
            MovedOn::Stayed(connected) => return Ok((connected, asked)),
        };
    }
}

/// Relays the login of a session in the clear, or of one whose TLS is terminated here, from the server's first bytes
/// until the server is ready for its first query. Returns the key, if the server has sent one by then. Also returns
/// when the server sends an error or does not speak the protocol, when the login takes too long or too many bytes, or
/// when a side ends: the relay then carries the rest.
///
/// If the session ends during the login, the server's connection is reset.
///
/// # Errors
/// A connection broke.
async fn relay_login(
    client: &TcpStream,
    connected: &mut Connected,
    answer: &[u8],
    entry: &Entry,
) -> Result<Option<CancelKey>, Refusal> {
    reset_when_closed(&connected.socket);
    let mut server = SideStream::new(TlsSide {
        socket: &connected.socket,
        tls: None,
    });
    let mut client = SideStream::new(TlsSide {
        socket: client,
        tls: connected.client_tls.take().map(|tls| *tls),
    });
    let key = relay_until_ready(&mut client, &mut server, answer, entry).await;
    if let Some(error) = client.take_error() {
        entry.info().tls_mut().error = Some(error_word(&error));
    }
    let key = key?;
    connected.client_tls = client.into_tls().map(Box::new);
    close_cleanly_again(&connected.socket);
    Ok(key)
}

async fn relay_until_ready(
    client: &mut SideStream<'_>,
    server: &mut SideStream<'_>,
    answer: &[u8],
    entry: &Entry,
) -> Result<Option<CancelKey>, Refusal> {
    let until = Instant::now() + LOGIN_TIME_MAX;
    let mut reader = BackendReader::default();
    let (mut of_server, mut of_client) = ([0; READ_BYTES_MAX], [0; READ_BYTES_MAX]);
    let (mut is_done, mut client_bytes) = (reader.advance(answer), 0);
    entry.traffic().down.add(answer.len());
    send(client, answer, Side::Client).await?;
    while !is_done && client_bytes < CLIENT_BYTES_MAX {
        let (side, read) = tokio::select! {
            biased;
            read = server.read(&mut of_server) => (Side::Server, read),
            read = client.read(&mut of_client) => (Side::Client, read),
            () = sleep_until(until) => break,
        };
        let count = read.map_err(|error| Refusal::Broke(side, Fault::classify(&error)))?;
        if count == 0 {
            break; // the relay reads the end of the stream again
        }
        match side {
            Side::Server => {
                entry.traffic().down.add(count);
                is_done = reader.advance(&of_server[..count]);
                send(client, &of_server[..count], Side::Client).await?;
            }
            Side::Client => {
                entry.traffic().up.add(count);
                client_bytes += count;
                send(server, &of_client[..count], Side::Server).await?;
            }
        }
    }
    send(client, &[], Side::Client).await?; // flushes: TLS itself may have to answer the client's last bytes
    Ok(reader.into_key())
}

/// Sends all these bytes to one side.
async fn send(to: &mut SideStream<'_>, bytes: &[u8], side: Side) -> Result<(), Refusal> {
    let sending = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    match timeout(SEND_TIME_MAX, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Refusal::Broke(side, Fault::classify(&error))),
        Err(_) => Err(Refusal::Broke(side, Fault::Lost)),
    }
}
