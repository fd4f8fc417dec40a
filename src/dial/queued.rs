//! Waiting in a pool's queue, or for a fixed time. A wait ends early if the client leaves.

use std::future::pending;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::{DialClient, DialError, Progress, Search};
use crate::pool::{Lease, Pool, QueueFailure};
use crate::socket::{PeerWatch, socket_fault};

/// Waits for a lease on a server that the client has not tried.
///
/// # Errors
/// There is no lease, for the reason given; or the client has left, or its connection has failed.
pub(super) async fn wait(
    pool: &Pool,
    client: &DialClient<'_>,
    search: &mut Search,
    report: &mut impl FnMut(Progress<'_>),
) -> Result<Lease, DialError> {
    let Search { tried, turn } = search;
    let mut has_joined = false;
    let is_asleep = pool.needs_wake(Instant::now());
    let on_join = |position| {
        has_joined = true;
        report(Progress::Queued { position, is_asleep });
    };
    let watch = PeerWatch::new(client.socket);
    // If a client that may half-close ends its stream, it moves behind the clients with open streams. Any other client
    // that ends its stream has left, and so has any client that closes its Unix socket.
    let half_close = async {
        match client.may_half_close {
            true => watch.stream_end().await,
            false => pending().await,
        }
    };
    // Cancel safe: a wait that is dropped leaves the queue, and nothing is read from the client.
    let lease = tokio::select! {
        biased;
        lease = pool.wait_for_lease(client.address, tried, turn, half_close, on_join) => lease.map_err(|failure| match failure {
            QueueFailure::NoServer => DialError::no_server_after(tried),
            QueueFailure::NoQueue => DialError::ServersFull,
            QueueFailure::Full => DialError::QueueFull,
            QueueFailure::Timeout => DialError::QueueTimeout,
        }),
        fault = socket_fault(client.socket) => Err(DialError::ClientFault(fault)),
        () = watch.stream_end(), if !client.may_half_close => Err(DialError::ClientLeft),
        () = watch.unix_close(), if client.may_half_close => Err(DialError::ClientLeft),
    };
    if has_joined {
        report(Progress::Dequeued);
    }
    lease
}

/// Waits for `time`. Takes the end of the client's stream to mean that the client has left, so this must not be called
/// for clients that may half-close.
///
/// # Errors
/// The client has left, or its connection has failed.
pub async fn pause(client: &TcpStream, time: Duration) -> Result<(), DialError> {
    let watch = PeerWatch::new(client);
    tokio::select! {
        biased;
        fault = socket_fault(client) => Err(DialError::ClientFault(fault)),
        () = watch.stream_end() => Err(DialError::ClientLeft),
        () = sleep(time) => Ok(()),
    }
}
