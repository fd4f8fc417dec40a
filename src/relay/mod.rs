//! Moves the bytes of a session both ways until the end.
//!
//! [`relay`] takes two sockets, the bytes that were read before, limits and a [`Traffic`] to count in, and returns how it
//! ended. Nobody else knows how bytes move. The decisions are made in `core`, without IO; the system calls are made in
//! `engine`.
//!
//! **TLS.** A connection that reads and writes through a TLS implementation in user space will be another `Wire` of
//! `engine::poll`: its bytes are plaintext, what it reads or writes of TCP is its own business, a close_notify alert is
//! the end of the stream (`shut_down` sends one), and an end of TCP without it is a broken connection. It cannot be
//! spliced: `Wire` will have to say so before a pipe is taken. The core stays as it is.

mod closed;
mod core;
mod engine;
#[cfg(test)]
mod tests;
mod traffic;

use tokio::net::TcpStream;

pub use closed::{Closed, Pending, RelayLimits, Side};
pub use engine::poll::limit_pipes;
use engine::poll::relay_between;
pub use traffic::{Moved, Traffic};

/// Moves bytes both ways until both sides are done, one breaks, it was silent for too long, or `cut` is ready.
///
/// `first` is sent to the server before anything else. After a server's reset the client first gets what the server had
/// sent. The sockets are left to the caller, who resets them if the end [is abrupt](Closed::is_abrupt).
///
/// Cancelling loses bytes: those that were read and not sent yet.
///
/// No `async fn`: that would keep its arguments a second time, and every idle session with them.
pub fn relay<'a>(
    client: &'a TcpStream,
    server: &'a TcpStream,
    first: Vec<u8>,
    limits: RelayLimits,
    traffic: &'a Traffic,
    cut: impl Future + Unpin + 'a,
) -> impl Future<Output = Closed> + 'a {
    relay_between(client, server, first, limits, traffic, cut)
}
