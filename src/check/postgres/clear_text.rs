//! Keeps a password from being sent in clear text over a connection that others can read, and finds the error that a
//! server sends in place of an answer to SSLRequest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Why there is no login.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoginRefusal {
    /// The server asks for the password itself, and others could read it.
    #[error(
        "the server asks for the password in clear text, and the connection is not encrypted: switch on TLS at the server, \
         or let its pg_hba.conf ask for scram-sha-256"
    )]
    ClearTextPassword,
    /// The server cannot start a process for the connection. It says so before it has read anything, and in an old
    /// version of the protocol.
    #[error("the server cannot start a process for the connection: its log says why")]
    NoProcess,
}

/// Passes on the bytes of a server. Reading fails at an error in place of the answer to SSLRequest. It also fails at
/// AuthenticationCleartextPassword, unless the server has agreed to TLS or the connection is private. For the messages,
/// see "Message Formats" in the chapter "Frontend/Backend Protocol" of PostgreSQL.
pub(super) struct CleartextPasswordGuard<R> {
    from: R,
    /// Whether nobody else can read the connection, so that the password may be sent.
    is_private: bool,
    next: AwaitedByte,
}

/// What the next byte belongs to.
enum AwaitedByte {
    /// The answer to SSLRequest.
    SslAnswer,
    /// The kind of a message and its length, and how many of these bytes have come.
    Head([u8; 5], usize),
    /// The code of the first request for authentication, and how many of its bytes have come.
    AuthenticationCode([u8; 4], usize),
    /// The body of another message, and how many of its bytes are left.
    OtherMessage(u32),
    /// No later byte matters: the server has agreed to TLS, or its first request for authentication has been examined.
    /// The client sends no password in clear text if only a later request asks for it.
    Decided,
}

/// The beginning of an error.
const ERROR: u8 = b'E';

/// The kind of a request for authentication.
const AUTHENTICATION: u8 = b'R';

/// The code of AuthenticationCleartextPassword.
const CLEAR_TEXT_PASSWORD: [u8; 4] = [0, 0, 0, 3];

impl<R> CleartextPasswordGuard<R> {
    /// `is_private`: the connection is over a Unix socket.
    pub(super) fn new(from: R, is_private: bool) -> Self {
        Self {
            from,
            is_private,
            next: AwaitedByte::SslAnswer,
        }
    }
}

impl AwaitedByte {
    /// Takes the next byte.
    fn after(self, byte: u8) -> Result<Self, LoginRefusal> {
        Ok(match self {
            Self::SslAnswer if byte == b'S' => Self::Decided,
            Self::SslAnswer if byte == ERROR => return Err(LoginRefusal::NoProcess),
            Self::SslAnswer => Self::Head([0; 5], 0), // whatever else it is, the client goes on without TLS
            Self::Decided => Self::Decided,
            Self::Head(mut head, filled) => {
                head[filled] = byte;
                if filled + 1 < head.len() {
                    return Ok(Self::Head(head, filled + 1));
                }
                let [kind, length @ ..] = head;
                if kind == AUTHENTICATION {
                    return Ok(Self::AuthenticationCode([0; 4], 0));
                }
                // The length counts its own 4 bytes.
                match u32::from_be_bytes(length).saturating_sub(4) {
                    0 => Self::Head([0; 5], 0),
                    left => Self::OtherMessage(left),
                }
            }
            Self::OtherMessage(left) if left > 1 => Self::OtherMessage(left - 1),
            Self::OtherMessage(_) => Self::Head([0; 5], 0),
            Self::AuthenticationCode(mut code, filled) => {
                code[filled] = byte;
                if filled + 1 < code.len() {
                    Self::AuthenticationCode(code, filled + 1)
                } else if code == CLEAR_TEXT_PASSWORD {
                    return Err(LoginRefusal::ClearTextPassword);
                } else {
                    Self::Decided
                }
            }
        })
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for CleartextPasswordGuard<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.from).poll_read(cx, buffer))?;
        let mut refused = None;
        for byte in &buffer.filled()[before..] {
            if matches!(self.next, AwaitedByte::Decided) {
                break;
            }
            let next = std::mem::replace(&mut self.next, AwaitedByte::Decided);
            match next.after(*byte) {
                Ok(next) => self.next = next,
                Err(LoginRefusal::ClearTextPassword) if self.is_private => {} // `self.next` stays `Decided`
                Err(refusal) => refused = Some(refusal),
            }
        }
        if let Some(refusal) = refused {
            buffer.set_filled(before); // a read that fails must return no bytes
            return Poll::Ready(Err(io::Error::other(refusal)));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn refusal(bytes: &[u8]) -> Option<LoginRefusal> {
        let mut next = AwaitedByte::SslAnswer;
        for byte in bytes {
            match next.after(*byte) {
                Ok(following) => next = following,
                Err(refusal) => return Some(refusal),
            }
        }
        None
    }

    #[tokio::test]
    async fn a_clear_text_password_is_refused_unless_the_connection_is_private() {
        let request = b"NR\0\0\0\x08\0\0\0\x03";
        for is_private in [false, true] {
            let mut read = Vec::new();
            let mut guarded = CleartextPasswordGuard::new(&request[..], is_private);
            let result = guarded.read_to_end(&mut read).await;
            let passed = if is_private { &request[..] } else { b"" };
            assert_eq!((result.is_ok(), &*read), (is_private, passed));
        }
    }

    #[test]
    fn only_clear_text_password_requests_and_early_errors_are_refused() {
        let clear_text = Some(LoginRefusal::ClearTextPassword);
        for (bytes, expected) in [
            (&b"NR\0\0\0\x08\0\0\0\x03"[..], &clear_text),
            (b"NN\0\0\0\x06xxR\0\0\0\x08\0\0\0\x03", &clear_text), // after a notice
            (b"NN\0\0\0\x04R\0\0\0\x08\0\0\0\x03", &clear_text),
            (b"xR\0\0\0\x08\0\0\0\x03", &clear_text),
            (b"SR\0\0\0\x08\0\0\0\x03", &None), // in TLS
            (b"NR\0\0\0\x0c\0\0\0\x05salt", &None),
            (b"NR\0\0\0\x08\0\0\0\0Z\0\0\0\x05IR\0\0\0\x08\0\0\0\x03", &None), // logged in
            (
                b"Ecould not fork new process for connection",
                &Some(LoginRefusal::NoProcess),
            ),
            (b"NE\0\0\0\x20", &None), // an error in answer to the login
        ] {
            assert_eq!(&refusal(bytes), expected, "{bytes:?}");
        }
    }
}
