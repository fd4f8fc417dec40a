//! The refusal of a TLS client: an alert, so that it learns why, and an orderly end.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::alert::Alert;
use super::hello::Hello;

/// How long a refused client is listened to.
pub const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);

/// How many bytes of it are read: the longest ClientHello that has both its cipher suites and its extensions full
/// (RFC 8446, section 4.1.2) is refused when its first segment has come, and the rest of it fits in here.
pub const REFUSAL_BYTES_MAX: usize = 128 << 10;

/// Of one read.
const READ_BYTES_MAX: usize = 4096;

/// The alert for a client that no route takes, or that a route refuses.
#[must_use]
pub fn no_route(hello: &Hello) -> Alert {
    if hello.name.is_some() {
        Alert::UnrecognizedName
    } else if hello.tls13_offered {
        Alert::MissingExtension
    } else {
        Alert::HandshakeFailure
    }
}

/// Sends the alert, finishes our side, and reads and drops what still comes, within [`REFUSAL_TIME_MAX`] for all of
/// that and [`REFUSAL_BYTES_MAX`]; then closes. To close with bytes unread would be a reset, and that may overtake
/// the alert.
pub async fn refuse<S>(mut socket: S, alert: [u8; 7])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let farewell = async {
        socket.write_all(&alert).await?;
        socket.shutdown().await?;
        let mut left = REFUSAL_BYTES_MAX;
        while left > 0 {
            match poll_fn(|cx| drop_some(Pin::new(&mut socket), cx, left)).await? {
                0 => break,
                dropped => left -= dropped,
            }
        }
        io::Result::Ok(())
    };
    // Out of time or an error: either way there is no more to say to this client.
    let _ = timeout(REFUSAL_TIME_MAX, farewell).await;
}

/// Reads once, to the stack: a refused client holds no buffer.
fn drop_some<S: AsyncRead>(socket: Pin<&mut S>, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<usize>> {
    let mut scratch = [const { MaybeUninit::uninit() }; READ_BYTES_MAX];
    let mut read = ReadBuf::uninit(&mut scratch[..bytes_max.min(READ_BYTES_MAX)]);
    ready!(socket.poll_read(cx, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::net::{TcpListener, TcpStream};
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
    fn alerts_to_the_byte() {
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
            let record = no_route(&hello).record(Some(hello.newest_version));
            assert_eq!(record, sent, "{hello:?}");
        }
        assert_eq!(Alert::DecodeError.record(None), [21, 3, 3, 0, 2, 2, 50]);
        assert_eq!(Alert::InternalError.record(Some(0x0301)), [21, 3, 1, 0, 2, 2, 80]);
    }

    #[tokio::test]
    async fn bytes_unread_do_not_cost_the_client_its_alert() {
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
        tokio::join!(refuse(server, sent), client_side);
        assert_eq!(received, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_client_is_heard_for_so_long_and_so_much() {
        for (bytes, waited) in [
            (REFUSAL_BYTES_MAX - 1, REFUSAL_TIME_MAX),
            (REFUSAL_BYTES_MAX, Duration::ZERO),
        ] {
            let (mut client, server) = duplex(1 << 20);
            client.write_all(&vec![0; bytes]).await.unwrap();
            let started_at = Instant::now();
            refuse(server, Alert::DecodeError.record(None)).await;
            let took = started_at.elapsed();
            assert!(
                took >= waited && took <= waited + Duration::from_millis(1),
                "{bytes} bytes: {took:?}"
            );
            assert!(client.write_all(b"more").await.is_err(), "it is closed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_not_waited_for() {
        let (_client, server) = duplex(3); // the alert does not even fit
        let started_at = Instant::now();
        refuse(server, Alert::DecodeError.record(None)).await;
        assert!(started_at.elapsed() <= REFUSAL_TIME_MAX + Duration::from_millis(1));
    }
}
