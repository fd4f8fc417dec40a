//! The refusal of a TLS client: a fatal alert, so that it learns why, and an orderly end.
//!
//! ```text
//! a record of its own, RFC 8446 sections 5.1 and 6
//!   +------+---------+-------+-----------+-------------+
//!   | 0x15 | version | 00 02 | 02: fatal | description |
//!   +------+---------+-------+-----------+-------------+
//! ```

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::time::timeout;

use super::hello::Hello;

/// Why a TLS client is refused; the numbers are those of RFC 8446, section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// No route takes a client without a name, and it is older than TLS 1.3.
    HandshakeFailure = 40,
    /// Its ClientHello is malformed.
    DecodeError = 50,
    /// There is no server for it.
    InternalError = 80,
    /// No route takes a client without a name; TLS 1.3 has a word for that.
    MissingExtension = 109,
    /// No route takes its name.
    UnrecognizedName = 112,
}

impl Alert {
    /// For a client that no route takes, or that a route refuses.
    #[must_use]
    pub fn no_route(hello: &Hello) -> Self {
        match hello {
            Hello { name: Some(_), .. } => Self::UnrecognizedName,
            Hello {
                tls13_offered: true, ..
            } => Self::MissingExtension,
            _ => Self::HandshakeFailure,
        }
    }
}

/// TLS 1.0 as on the wire.
const TLS_1_0: u16 = 0x0301;

/// The record that says so. Its version is 03 03, but 03 01 for a client that offers nothing later than TLS 1.0;
/// `hello` is `None` where there is no whole one.
#[must_use]
pub fn alert(alert: Alert, hello: Option<&Hello>) -> [u8; 7] {
    let is_old = hello.is_some_and(|hello| hello.newest_version <= TLS_1_0);
    let minor = if is_old { 1 } else { 3 };
    [21, 3, minor, 0, 2, 2, alert as u8]
}

/// How long a refused client is listened to.
pub const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);

/// How many bytes of it are read.
pub const REFUSAL_BYTES_MAX: u64 = 64 << 10;

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
        copy(&mut (&mut socket).take(REFUSAL_BYTES_MAX), &mut sink()).await?;
        io::Result::Ok(())
    };
    // Out of time or an error: either way there is no more to say to this client.
    let _ = timeout(REFUSAL_TIME_MAX, farewell).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;
    use crate::name::ServerName;

    fn hello(name: Option<&str>, newest_version: u16) -> Hello {
        Hello {
            name: name.map(|name| ServerName::from_config(name).unwrap()),
            raw_name: None,
            alpn: Vec::new(),
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
            (None, 0x0304, [21, 3, 3, 0, 2, 2, 109]),
            (None, 0x0303, [21, 3, 3, 0, 2, 2, 40]),
            (None, 0x0302, [21, 3, 3, 0, 2, 2, 40]),
            (None, 0x0301, [21, 3, 1, 0, 2, 2, 40]),
            (None, 0x0300, [21, 3, 1, 0, 2, 2, 40]),
        ] {
            let hello = hello(name, newest);
            assert_eq!(alert(Alert::no_route(&hello), Some(&hello)), sent, "{hello:?}");
        }
        assert_eq!(alert(Alert::DecodeError, None), [21, 3, 3, 0, 2, 2, 50]);
        let old = hello(Some("a.example"), 0x0301);
        assert_eq!(alert(Alert::InternalError, Some(&old)), [21, 3, 1, 0, 2, 2, 80]);
    }

    #[tokio::test]
    async fn bytes_unread_do_not_cost_the_client_its_alert() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(&[0; 20_000]).await.unwrap();
        server.readable().await.unwrap();
        let sent = alert(Alert::InternalError, None);
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
            client
                .write_all(&vec![0; usize::try_from(bytes).unwrap()])
                .await
                .unwrap();
            let started_at = Instant::now();
            refuse(server, alert(Alert::DecodeError, None)).await;
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
        refuse(server, alert(Alert::DecodeError, None)).await;
        assert!(started_at.elapsed() <= REFUSAL_TIME_MAX + Duration::from_millis(1));
    }
}
