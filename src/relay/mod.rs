//! Moves the bytes of a session both ways until the end.
//!
//! [`relay`] takes two sockets, the bytes that were read before, limits and a [`Traffic`] to count in, and returns how the
//! relay ended. The decisions are made in `core`, without IO; the system calls are made in `engine`.
//!
//! **TLS.** A connection that uses a TLS implementation in user space will be another `Wire` of `engine::poll`. Its bytes
//! are the plaintext; a close_notify alert is the end of the stream (`shut_down` sends one), and a TCP FIN without it is a
//! broken connection. It cannot be spliced, and `Wire` will need a method that says so. The core needs no change.

mod closed;
mod close_notify;
mod traffic;
mod core;
mod engine;
#[cfg(test)]
mod tests;

use tokio::net::TcpStream;

use crate::guard::Throttle;
pub use closed::{Closed, Pending, RelayLimits, Side};
pub use engine::poll::limit_pipes;
use engine::poll::relay_between;
pub use traffic::{ByteCounter, Traffic};

/// Moves bytes both ways until both sides have finished, one breaks, nothing has moved for too long, or `cut` is ready.
///
/// `first` is sent to the server before anything else. After a server's reset, what the server had sent is still delivered
/// to the client. The caller closes the sockets, and resets them if the end [is abrupt](Closed::is_abrupt).
///
/// `throttle` limits how fast bytes are read; `None`: nothing does.
///
/// Cancelling the future loses the bytes that were read and not sent yet.
///
/// Not an `async fn`: its future would hold the arguments twice, in every session.
pub fn relay<'a>(
    client: &'a TcpStream,
    server: &'a TcpStream,
    first: Vec<u8>,
    limits: RelayLimits,
    traffic: &'a Traffic,
    throttle: Option<Box<Throttle>>,
    cut: impl Future + Unpin + 'a,
) -> impl Future<Output = Closed> + 'a {
    relay_between(client, server, first, limits, traffic, throttle, cut)
}
