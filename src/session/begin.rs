//! Sends the first packet of a PostgreSQL session to the server, and reads the answer. This is only for sessions whose
//! packets can be read here: those in the clear, and those whose TLS is terminated here.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::listener_state::ListenerState;
use super::not_ready::{FirstMessage, first_message};
use super::reconnect::{MovedOn, move_on};
use super::redial::NotBegun;
use super::refusal::Refusal;
use super::steps::Connected;
use crate::account::Entry;
use crate::socket::{Fault, reset_when_closed};

/// The longest wait for the server's first message, and then the longest wait for the key that cancels queries. If the
/// key does not come in time, the session goes on without it.
///
/// This is the default of PostgreSQL's `authentication_timeout`.
pub(super) const LOGIN_TIME_MAX: Duration = Duration::from_secs(60);

/// How long one side may take to read what the other one sent during the login.
pub(super) const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// Sends the server the first packet of the session, and reads the server's first message. If the server does not begin
/// the session, connects to another server, or waits until a server is back. Returns the connection to the last server,
/// with the bytes that this server sent for the client, or with the fault that broke the connection.
///
/// If the session ends while this runs, the server's connection is reset.
///
/// # Errors
/// Those of [`move_on`].
pub(super) async fn begin(
    client: &TcpStream,
    mut connected: Connected,
    state: &ListenerState,
    entry: &mut Entry,
) -> Result<(Connected, Result<Vec<u8>, Fault>), Refusal> {
    let mut first = std::mem::take(&mut connected.first);
    // Where the client's bytes begin in `first`, behind the PROXY header. After an SSLRequest the server has the header
    // already.
    let mut startup_at = match &connected.redial {
        Some(redial) if !connected.has_ssl_request => redial.header.len(),
        _ => 0,
    };
    loop {
        reset_when_closed(&connected.socket);
        let why = match first_answer(client, &mut connected.socket, &first).await {
            FirstAnswer::Begun(answer) => {
                connected.server.record_begun();
                return Ok((connected, Ok(answer)));
            }
            FirstAnswer::Undecided(answer) => return Ok((connected, Ok(answer))),
            FirstAnswer::NotBegun(why) => why,
        };
        connected = match move_on(connected, &why, client, state, entry).await? {
            MovedOn::Moved(connected) => connected,
            MovedOn::Stayed(connected) => {
                let answer = match why {
                    NotBegun::NotReady { message, .. } => Ok(message),
                    NotBegun::Ended { fault: Some(fault), .. } => Err(fault), // part of a message is of no use
                    NotBegun::Ended { partial, .. } => Ok(partial),           // the relay reads the end again
                };
                return Ok((connected, answer));
            }
        };
        if let Some(redial) = &connected.redial {
            first = [&redial.header, &first[startup_at..]].concat();
            startup_at = redial.header.len();
        }
    }
}

/// How a server answers the first packet of a session.
enum FirstAnswer {
    /// With these bytes. They begin the session, or are an error that does not say that the server takes no sessions
    /// now, such as the refusal of a user.
    Begun(Vec<u8>),
    /// Before the server's first message was whole, the client sent more or left, or the time was over. These are the
    /// server's bytes so far. Another server can no longer take over, because the bytes that the client sends from now
    /// on may be meant for this one.
    Undecided(Vec<u8>),
    /// The server does not begin sessions now.
    NotBegun(NotBegun),
}

/// Sends a server these bytes, and reads its first message.
async fn first_answer(client: &TcpStream, server: &mut TcpStream, first: &[u8]) -> FirstAnswer {
    let ended = |fault: Option<Fault>, partial| FirstAnswer::NotBegun(NotBegun::Ended { fault, partial });
    match timeout(SEND_TIME_MAX, server.write_all(first)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return ended(Some(Fault::classify(&error)), Vec::new()),
        Err(_) => return ended(Some(Fault::Lost), Vec::new()),
    }
    let until = Instant::now() + LOGIN_TIME_MAX;
    let mut answer = Vec::new();
    let mut peeked = [0];
    loop {
        let read = tokio::select! {
            biased;
            read = server.read_buf(&mut answer) => read,
            _ = client.peek(&mut peeked) => return FirstAnswer::Undecided(answer),
            () = sleep_until(until) => return FirstAnswer::Undecided(answer),
        };
        match first_message(&answer) {
            FirstMessage::NotReady(reason) => {
                let message = answer;
                return FirstAnswer::NotBegun(NotBegun::NotReady { reason, message });
            }
            FirstMessage::Other => return FirstAnswer::Begun(answer),
            FirstMessage::NeedMore => match read {
                Ok(0) => return ended(None, answer),
                Ok(_) => {}
                Err(error) => return ended(Some(Fault::classify(&error)), answer),
            },
        }
    }
}
