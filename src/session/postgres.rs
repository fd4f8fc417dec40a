//! Requests for TLS in PostgreSQL sessions: how a listener answers those of clients, and how a server is asked for TLS.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::leased_server::LeasedServer;
use super::refusal::{Refusal, ending_of_fault};
use crate::account::{Ending, Entry};
use crate::dial::DialError;
use crate::plan::{ListenerPlan, Protocol};
use crate::refuse::{PostgresError, Reply};
use crate::relay::{Closed, Side};
use crate::sniff::TlsAnswer;
use crate::sniff::alert::Alert;
use crate::sniff::postgres::SSL_REQUEST;
use crate::socket::{Fault, socket_fault};

/// The `detail` in the access log of a session whose server has not answered a request for TLS.
pub(super) const TLS_REQUEST: &str = "tls_request";

/// Whether a listener refuses sessions in the clear.
pub(super) fn requires_tls(listener: &ListenerPlan) -> bool {
    matches!(listener.protocol, Protocol::Postgres { tls_required: true, .. })
}

/// How a listener answers clients that ask for TLS. The first case that applies decides:
///
/// - The ClientHello is needed, for example for a route by name: yes.
/// - The listener requires TLS: the server is asked. If we answered no, every client would be refused, because the
///   listener serves no sessions in the clear. Its routes by `database` or `user` never match.
/// - A route by `database` or `user` needs a session in the clear: no. A client that insists on TLS then reports that
///   there is none. After a yes, it would silently reach a server of another route.
/// - In all other cases, the server is asked.
pub(super) fn tls_answer(listener: &ListenerPlan) -> TlsAnswer {
    if listener.routes.needs_hello() {
        TlsAnswer::Yes
    } else if listener.routes.needs_startup() && !requires_tls(listener) {
        TlsAnswer::No
    } else {
        TlsAnswer::AskServer
    }
}

/// Agrees on TLS with a server, after this process has agreed on TLS with the client. Sends the PROXY header `header`
/// and an SSLRequest, and waits for the `S` of the server, at most `within`. After its `S`, the server waits for the
/// ClientHello. `reply` makes the reply to the client from an alert.
///
/// # Errors
/// The server does not answer, answers anything else, or sends bytes after its `S` (CVE-2021-23222); or the client is
/// gone.
pub(super) async fn agree_on_tls(
    socket: &mut TcpStream,
    header: &[u8],
    server: &LeasedServer,
    within: Duration,
    client: &TcpStream,
    entry: &Entry,
    reply: impl Fn(Alert) -> Reply,
) -> Result<(), Refusal> {
    let request = [header, &SSL_REQUEST].concat();
    let asked = tokio::select! {
        biased;
        asked = ask_for_tls(socket, &request, within, entry) => asked,
        fault = socket_fault(client) => return Err(Refusal::DialError(DialError::ClientFault(fault), Reply::Close)),
    };
    let answered = match asked {
        Ok((_, 0)) => Err(TlsRequestError::Closed),
        asked => asked,
    };
    match answered {
        Ok(([b'S', _], 1)) => Ok(()),
        Ok(([b'S', _], _)) => {
            tracing::debug!(server = %server.label(), "bytes follow the server's agreement to TLS"); // CVE-2021-23222
            Err(Refusal::ServerRefusedTls(reply(Alert::HandshakeFailure)))
        }
        Ok(([first, _], _)) => {
            let answer = char::from(first).escape_default();
            tracing::debug!(server = %server.label(), %answer, "the server does not agree to TLS");
            Err(Refusal::ServerRefusedTls(reply(Alert::HandshakeFailure)))
        }
        Err(why) => Err(unanswered_tls_refusal(
            &why,
            server,
            client,
            entry,
            reply(Alert::InternalError),
        )),
    }
}

/// Why a server has not answered a request for TLS.
pub(super) enum TlsRequestError {
    /// It has closed the connection.
    Closed,
    /// The connection broke.
    Broke(io::Error),
    /// Nothing came in time.
    Late,
}

/// Sends a server this request, which ends with an SSLRequest. Returns a buffer with its answer, and the length of the
/// answer; 0 at the end of the stream. Callers treat a second byte, behind `S` or `N`, as an error. An `S` or `N` alone
/// is not added to the traffic of the session. If it were, [`reply_to_login`] would reset the client, which can still
/// be sent an error.
pub(super) async fn ask_for_tls(
    socket: &mut TcpStream,
    request: &[u8],
    within: Duration,
    entry: &Entry,
) -> Result<([u8; 2], usize), TlsRequestError> {
    let mut answer = [0; 2];
    let ask = async {
        socket.write_all(request).await?;
        socket.read(&mut answer).await
    };
    let bytes = match timeout(within, ask).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(TlsRequestError::Broke(error)),
        Err(_) => return Err(TlsRequestError::Late),
    };
    if !matches!(answer[..bytes], [b'S' | b'N']) {
        entry.traffic().down.add(bytes);
    }
    Ok((answer, bytes))
}

/// The refusal of a session whose server has not answered a request for TLS. Reports the end of the session to the pool
/// if the connection to the server has ended.
pub(super) fn unanswered_tls_refusal(
    why: &TlsRequestError,
    server: &LeasedServer,
    client: &TcpStream,
    entry: &Entry,
    reply: Reply,
) -> Refusal {
    entry.info().detail = Some(TLS_REQUEST);
    let (reason, error, fault) = match why {
        TlsRequestError::Closed => ("closed", None, None),
        TlsRequestError::Broke(error) => (
            "broke",
            Some(tracing::field::display(error)),
            Some(Fault::classify(error)),
        ),
        TlsRequestError::Late => ("timeout", None, Some(Fault::Lost)),
    };
    tracing::debug!(server = %server.label(), reason, error, "the server does not answer a request for TLS");
    let (closed, ending) = match fault {
        None => (Closed::Finished(Side::Server), Ending::ServerClosed),
        Some(fault) => (Closed::Broke(Side::Server, fault), ending_of_fault(Side::Server, fault)),
    };
    // A server that hangs is not reported: with the default timeouts, the session has lasted for `SERVED_AFTER` (1 s)
    // by now, and the pool would take it for one that was served.
    if !matches!(why, TlsRequestError::Late) {
        server.report(client, closed, entry);
    }
    Refusal::Unanswered(ending, reply)
}

/// The reply to a client whose server goes down before it has answered the login or the request for TLS. If the client
/// can read an error, it gets one, and may try again.
pub(super) fn reply_to_login(entry: &Entry) -> Reply {
    if entry.traffic().down.bytes() > 0 {
        return Reply::Reset;
    }
    let info = entry.info();
    match info.startup() {
        // Within TLS, the client cannot read a message in the clear.
        Some(startup) if info.client_tls().is_none() => Reply::Message(PostgresError::NoServer.response(Some(startup))),
        _ if info.detail == Some(TLS_REQUEST) => unanswered_tls_reply(),
        _ => Reply::Reset,
    }
}

/// The reply to a client whose request for TLS the server has not answered.
pub(super) fn unanswered_tls_reply() -> Reply {
    Reply::AlertAfterHello(Alert::InternalError.record(None))
}
