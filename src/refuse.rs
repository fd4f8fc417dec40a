//! How a client is refused: by a close, by a message that says why (in TLS an alert) and then a close, or by a reset.

mod plain;
mod postgres;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use self::plain::PlainRefusal;
pub use self::postgres::PostgresError;
use crate::sniff::alert::{Alert, AlertRecord};
use crate::sniff::hello::Hello;
use crate::socket::reset;

/// How long bytes of a refused client are read and dropped.
pub const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);

/// How many bytes of a refused client are read and dropped. That is about the size of the longest ClientHello, in which
/// both the cipher suites and the extensions are full (RFC 8446, section 4.1.2): a client may be refused when only the
/// first segment of its ClientHello has come.
pub const REFUSAL_BYTES_MAX: usize = 128 << 10;

/// The size of one read.
const READ_BYTES_MAX: usize = 4096;

/// The last bytes for a refused client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The end of the stream, by closing the socket. If bytes of the client are unread, that is a reset.
    Close,
    /// The end of the stream. Bytes of the client are read and dropped, so that it does not get a reset instead.
    End,
    /// This TLS record, then the end of the stream.
    Alert(AlertRecord),
    /// This TLS record, for a PostgreSQL client that waits for the answer to its SSLRequest. It gets an `S` first, and
    /// the record when its ClientHello begins. It prints the alert or, if TLS is optional for it, connects again
    /// without TLS and prints the message that it then gets.
    AlertAfterHello(AlertRecord),
    /// These bytes, which are a message in the client's protocol, then the end of the stream.
    Message(Vec<u8>),
    /// A reset.
    Reset,
}

/// Refuses a client. This takes [`REFUSAL_TIME_MAX`] at most, or twice that with [`Reply::AlertAfterHello`].
pub async fn refuse(mut client: TcpStream, reply: Reply) {
    match reply {
        Reply::Close => drop(client),
        Reply::End => send_last(client, &[]).await,
        Reply::Alert(record) => send_last(client, &record).await,
        Reply::AlertAfterHello(record) => {
            if matches!(timeout(REFUSAL_TIME_MAX, agree_to_tls(&mut client)).await, Ok(Ok(()))) {
                send_last(client, &record).await;
            }
        }
        Reply::Message(bytes) => send_last(client, &bytes).await,
        Reply::Reset => reset(client),
    }
}

/// The alert for a client that no route takes, or that a route refuses.
#[must_use]
pub fn alert_without_route(hello: &Hello) -> Alert {
    if hello.name.is_some() {
        Alert::UnrecognizedName
    } else if hello.tls13_offered {
        Alert::MissingExtension
    } else {
        Alert::HandshakeFailure
    }
}

/// Answers an SSLRequest, and waits for the beginning of the ClientHello.
async fn agree_to_tls<S>(client: &mut S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    client.write_all(b"S").await?;
    match poll_fn(|cx| discard_some(Pin::new(client), cx, REFUSAL_BYTES_MAX)).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Sends the message, shuts down our side, reads and drops what still comes, up to [`REFUSAL_BYTES_MAX`], and closes.
/// This takes [`REFUSAL_TIME_MAX`] at most. Closing with unread bytes would be a reset, which may overtake the message.
async fn send_last<S>(mut socket: S, message: &[u8])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let sending = async {
        socket.write_all(message).await?;
        socket.shutdown().await?;
        let mut left = REFUSAL_BYTES_MAX;
        while left > 0 {
            match poll_fn(|cx| discard_some(Pin::new(&mut socket), cx, left)).await? {
                0 => break,
                dropped => left -= dropped,
            }
        }
        io::Result::Ok(())
    };
    // After a timeout or an error nothing more can be sent to this client.
    let _ = timeout(REFUSAL_TIME_MAX, sending).await;
}

/// Reads once, and drops what was read. The buffer is on the stack, so that a refused client costs no allocation.
fn discard_some<S: AsyncRead>(socket: Pin<&mut S>, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<usize>> {
    let mut scratch = [const { MaybeUninit::uninit() }; READ_BYTES_MAX];
    let mut read = ReadBuf::uninit(&mut scratch[..bytes_max.min(READ_BYTES_MAX)]);
    ready!(socket.poll_read(cx, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;
    use crate::name::Sni;
    use crate::sniff::hello::ProtocolList;

    fn hello(name: Option<&str>, newest_version: u16) -> Hello {
        Hello {
            name: name.and_then(|name| Sni::from_wire(name.as_bytes())),
            raw_name: None,
            alpn: ProtocolList::default(),
            ech: false,
            tls13_offered: newest_version == 0x0304,
            newest_version,
        }
    }

    #[test]
    fn the_alert_and_its_bytes_depend_on_the_name_and_the_newest_version_of_the_hello() {
        for (name, newest, sent) in [
            (Some("a.example"), 0x0304, [21, 3, 3, 0, 2, 2, 112]),
            (Some("a.example"), 0x0303, [21, 3, 3, 0, 2, 2, 112]),
            (Some("a.example"), 0x0301, [21, 3, 1, 0, 2, 2, 112]),
            (Some("a!b.example"), 0x0304, [21, 3, 3, 0, 2, 2, 112]),
            (None, 0x0304, [21, 3, 3, 0, 2, 2, 109]),
            (None, 0x0303, [21, 3, 3, 0, 2, 2, 40]),
            (None, 0x0302, [21, 3, 3, 0, 2, 2, 40]),
            (None, 0x0301, [21, 3, 1, 0, 2, 2, 40]),
            (None, 0x0300, [21, 3, 1, 0, 2, 2, 40]),
        ] {
            let hello = hello(name, newest);
            let record = alert_without_route(&hello).record(Some(hello.newest_version));
            assert_eq!(record, sent, "{hello:?}");
        }
        assert_eq!(Alert::DecodeError.record(None), [21, 3, 3, 0, 2, 2, 50]);
        assert_eq!(Alert::InternalError.record(Some(0x0301)), [21, 3, 1, 0, 2, 2, 80]);
    }

    #[tokio::test]
    async fn unread_bytes_do_not_lose_the_alert() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(&[0; 20_000]).await.unwrap();
        server.readable().await.unwrap();
        let sent = Alert::InternalError.record(None);
        let mut received = Vec::new();
        let client_side = async {
            client.read_to_end(&mut received).await.unwrap(); // a reset would be an error
            drop(client);
        };
        tokio::join!(send_last(server, &sent), client_side);
        assert_eq!(received, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn discarding_bytes_of_a_refused_client_is_bounded_in_time_and_size() {
        for (bytes, waited) in [
            (REFUSAL_BYTES_MAX - 1, REFUSAL_TIME_MAX),
            (REFUSAL_BYTES_MAX, Duration::ZERO),
        ] {
            let (mut client, server) = duplex(1 << 20);
            client.write_all(&vec![0; bytes]).await.unwrap();
            let started_at = Instant::now();
            send_last(server, &Alert::DecodeError.record(None)).await;
            let took = started_at.elapsed();
            assert!(
                took >= waited && took <= waited + Duration::from_millis(1),
                "{bytes} bytes: {took:?}"
            );
            assert!(client.write_all(b"more").await.is_err(), "it is closed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_refused_in_time() {
        let (_client, server) = duplex(3); // the alert does not even fit
        let started_at = Instant::now();
        send_last(server, &Alert::DecodeError.record(None)).await;
        assert!(started_at.elapsed() <= REFUSAL_TIME_MAX + Duration::from_millis(1));
    }
}
