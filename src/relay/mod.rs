//! Moves the bytes of a session both ways until the end.
//!
//! [`relay`] takes two sockets, the first bytes for the server, limits and a [`Traffic`] to count in, and returns how
//! the relay ended. The decisions are made in `core`, without IO, and the system calls in `engine`.
//!
//! **TLS.** A connection may use TLS that is terminated or begun here ([`relay_tls`]): its bytes are the plaintext, a
//! close_notify alert is the end of its stream, and a socket that is closed without one was cut off. TLS cannot be
//! spliced. The core is the same as without TLS.

mod closed;
mod close_notify;
mod traffic;
mod core;
mod engine;
mod stream;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::task::Poll;

use tokio::net::TcpStream;

pub use self::core::FOLLOW_TIMEOUT;
use crate::guard::Throttle;
use crate::tls::TlsConnection;
pub use closed::{Closed, DeliveryNotes, EndRequest, Pending, RelayLimits, Side};
pub use engine::poll::limit_pipes;
use engine::poll::{MaybeTls, TlsWire, Wire, relay_between};
pub use stream::SideStream;
pub use traffic::{ByteCounter, Traffic};

/// Moves bytes both ways until both sides have finished, one breaks, or nothing has moved for too long.
///
/// `end` gives requests to end the relay, and is polled after every poll of the relay. If a request does not end the
/// relay, `end` is polled again for the next request: it must allow that after it was ready.
///
/// `first` is sent to the server before anything else. After a server's reset, what the server had sent is still
/// delivered to the client. The caller closes the sockets, and resets them if the end [is abrupt](Closed::is_abrupt).
///
/// `throttle` limits how fast bytes are read; `None`: no limit.
///
/// Cancelling the future loses the bytes that were read and not sent yet.
///
/// Not an `async fn`: its future would hold the arguments twice, in every session.
pub fn relay<'a, 'r: 'a>(
    client: &'a TcpStream,
    server: &'a TcpStream,
    first: Vec<u8>,
    limits: RelayLimits,
    traffic: &'a Traffic,
    throttle: Option<Box<Throttle>>,
    end: impl Future<Output = EndRequest<'r>> + Unpin + 'a,
) -> impl Future<Output = Closed> + 'a {
    relay_between(client, server, first, limits, traffic, throttle, end)
}

/// One side of a session, with or without TLS.
pub struct TlsSide<'a> {
    /// Its socket.
    pub socket: &'a TcpStream,
    /// TLS on this socket, after the handshake. `None`: this side uses no TLS.
    pub tls: Option<TlsConnection>,
}

impl<'a> TlsSide<'a> {
    fn wire(self) -> MaybeTls<'a> {
        match self.tls {
            Some(connection) => MaybeTls::Tls(Box::new(TlsWire::new(self.socket, connection))),
            None => MaybeTls::Tcp(self.socket),
        }
    }
}

/// As [`relay`], for a session of which at least one side uses TLS. Also returns the TLS error of a side, if that ended
/// the session.
pub async fn relay_tls<'a>(
    client: TlsSide<'_>,
    server: TlsSide<'_>,
    first: Vec<u8>,
    limits: RelayLimits,
    traffic: &Traffic,
    throttle: Option<Box<Throttle>>,
    end: impl Future<Output = EndRequest<'a>> + Unpin,
) -> (Closed, Option<rustls::Error>) {
    let (client, server) = (client.wire(), server.wire());
    let closed = relay_between(&client, &server, first, limits, traffic, throttle, end).await;
    if !closed.is_abrupt() {
        // Ends the streams that are still open, for example after an idle timeout. All bytes were sent, so the
        // kernel has room for a close_notify.
        poll_fn(|cx| {
            for wire in [&client, &server] {
                let _ = wire.poll_shut_down(cx);
            }
            Poll::Ready(())
        })
        .await;
    }
    (closed, client.take_error().or_else(|| server.take_error()))
}
