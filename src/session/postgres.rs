//! What is agreed with the two sides of a PostgreSQL session about TLS.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::account::Entry;
use crate::dial::DialError;
use crate::plan::{ListenerPlan, PoolPlan, Protocol};
use crate::refuse::Reply;
use crate::sniff::TlsAnswer;
use crate::sniff::alert::Alert;
use crate::sniff::postgres::SSL_REQUEST;
use crate::socket::socket_fault;

/// Whether a listener refuses sessions in the clear.
pub(super) fn requires_tls(listener: &ListenerPlan) -> bool {
    matches!(listener.protocol, Protocol::Postgres { tls_required: true, .. })
}

/// How the clients of a listener are answered that ask for TLS.
///
/// A route by name needs the ClientHello. A route by `database` or `user` needs a session in the clear: rather than going
/// to another server in silence, a client that insists on TLS reports that it is not to be had. On other listeners the
/// server knows.
pub(super) fn tls_answer(listener: &ListenerPlan) -> TlsAnswer {
    if listener.routes.needs_hello() {
        TlsAnswer::Yes
    } else if listener.routes.needs_startup() && !requires_tls(listener) {
        TlsAnswer::No
    } else {
        TlsAnswer::AskServer
    }
}

/// Asks a server for TLS, because we have agreed to it in its stead: sends it `header` and an SSLRequest, and waits for its
/// `S`. Then it waits for the ClientHello. `told`: what the client gets with this alert.
///
/// # Errors
/// The server answers anything else, also if something comes behind its `S` (CVE-2021-23222), or nothing within the time
/// for a connect; or the client is gone.
pub(super) async fn request_tls(
    server: &mut TcpStream,
    header: &[u8],
    pool: &PoolPlan,
    client: &TcpStream,
    entry: &Entry,
    told: impl Fn(Alert) -> Reply,
) -> Result<(), Refusal> {
    let request = [header, &SSL_REQUEST].concat();
    let ask = ask_for_tls(server, &request, entry);
    let asked = tokio::select! {
        biased;
        asked = timeout(pool.dial.connect.timeout, ask) => asked,
        fault = socket_fault(client) => return Err(Refusal::DialError(DialError::ClientFault(fault), Reply::Close)),
    };
    match asked {
        Ok(Ok(([b'S', _], 1))) => Ok(()),
        Ok(answer) => {
            tracing::debug!(pool = %pool.name, ?answer, "the server does not agree to TLS");
            Err(Refusal::ServerRefusedTls(told(Alert::HandshakeFailure)))
        }
        Err(_) => Err(Refusal::DialError(DialError::ConnectFailed, told(Alert::InternalError))),
    }
}

/// Sends a server this request, which ends with an SSLRequest. Returns its answer and the number of bytes that have come: a
/// second one must not.
pub(super) async fn ask_for_tls(server: &mut TcpStream, request: &[u8], entry: &Entry) -> io::Result<([u8; 2], usize)> {
    server.write_all(request).await?;
    let mut answer = [0; 2];
    let bytes = server.read(&mut answer).await?;
    entry.traffic().down.add(bytes);
    Ok((answer, bytes))
}
