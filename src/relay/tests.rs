//! The relay over real sockets (a client and a server outside, two sockets of ours between them), and over a
//! [model](kernel) of them.
//!
//! Client and server may run on the same thread as the relay, so a test must not block this thread.

mod completions;
mod endings;
mod keys;
mod kernel;
mod oracle;
mod silence;
mod simulation;
mod socket;
mod streams;
mod tickets;
mod turns;
mod urgent;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::core::{DELIVERY_CHECK_INTERVAL, DELIVERY_TIMEOUT, SendQueue};
use super::engine::poll::Socket;
use super::*;
use crate::socket::{Fault, SocketOptions, reset, socket_fault};
use crate::tls::TlsConnection;

const NO_LIMITS: RelayLimits = RelayLimits {
    idle_timeout: None,
    half_close_timeout: None,
    ends_with_server: false,
};

const OPTIONS: SocketOptions = SocketOptions {
    keepalive: None,
    user_timeout: None,
};

/// The buffer sizes of the sockets, in bytes as given to the kernel (which doubles them). `None`: the kernel chooses.
#[derive(Clone, Copy, Debug, Default)]
struct Buffers {
    /// The sizes for the test's ends: the client and the server.
    outer: Option<usize>,
    /// The sizes for the two ends that the relay holds.
    inner: Option<usize>,
}

/// The settings of a session under test.
#[derive(Clone, Debug)]
struct Setup {
    /// The bytes that the client sent before the relay began.
    first: Vec<u8>,
    limits: RelayLimits,
    buffers: Buffers,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            limits: NO_LIMITS,
            buffers: Buffers::default(),
        }
    }
}

/// A relayed session, seen from outside.
struct Session {
    client: TcpStream,
    server: TcpStream,
    traffic: Arc<Traffic>,
    cut: CancellationToken,
    relay: JoinHandle<Closed>,
}

impl Session {
    async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Self {
        Self::start(setup, None).await
    }

    /// A session whose client uses TLS, which the relay terminates with `tls`.
    async fn over_tls(tls: TlsConnection) -> Self {
        Self::start(Setup::default(), Some(tls)).await
    }

    async fn start(setup: Setup, tls: Option<TlsConnection>) -> Self {
        let (client, inner_client) = connected(setup.buffers.outer, setup.buffers.inner).await;
        let (server, inner_server) = connected(setup.buffers.outer, setup.buffers.inner).await;
        let (traffic, cut) = (Arc::new(Traffic::default()), CancellationToken::new());
        let counted = Arc::clone(&traffic);
        let cancelled = cut.clone().cancelled_owned();
        let cut_signal = Box::pin(async move {
            cancelled.await;
            EndRequest::Cut
        });
        let relay = tokio::spawn(async move {
            let (first, limits) = (setup.first, setup.limits);
            let (client, server) = (&inner_client, &inner_server);
            let closed = match tls {
                None => relay(client, server, first, limits, &counted, None, cut_signal).await,
                Some(tls) => {
                    let client = TlsSide {
                        socket: client,
                        tls: Some(tls),
                    };
                    let server = TlsSide {
                        socket: server,
                        tls: None,
                    };
                    relay_tls(client, server, first, limits, &counted, None, cut_signal)
                        .await
                        .0
                }
            };
            if closed.is_abrupt() {
                reset(inner_server);
                reset(inner_client);
            }
            closed
        });
        Self {
            client,
            server,
            traffic,
            cut,
            relay,
        }
    }

    async fn closed(self) -> Closed {
        within(self.relay).await.expect("the relay did not panic")
    }
}

/// Two ends of one loopback connection: the one that connected, with buffers of `near_bytes`, and the one that was
/// accepted, with buffers of `far_bytes`.
async fn connected(near_bytes: Option<usize>, far_bytes: Option<usize>) -> (TcpStream, TcpStream) {
    let (near_socket, listening) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    for (socket, bytes) in [(&near_socket, near_bytes), (&listening, far_bytes)] {
        if let Some(bytes) = bytes {
            SockRef::from(socket).set_recv_buffer_size(bytes).unwrap();
            SockRef::from(socket).set_send_buffer_size(bytes).unwrap();
        }
    }
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listening.listen(1).unwrap();
    let near = near_socket.connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    // Registered anew, as sessions' sockets are: tokio assumes that a socket that it accepted itself is readable.
    let far = TcpStream::from_std(far.into_std().unwrap()).unwrap();
    for socket in [&near, &far] {
        OPTIONS.apply(&SockRef::from(socket));
    }
    (near, far)
}

/// Fails a test that hangs. The time is much longer than the slowest wait takes.
async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future)
        .await
        .expect("it hangs: nothing came for 20 s")
}

/// Reads to the end of the stream. Returns the bytes, and how the stream ended: `Ok` for an orderly end.
async fn read_all(socket: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match within(socket.read(&mut buffer)).await {
            Ok(0) => return (bytes, Ok(())),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

async fn read_exactly(socket: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    within(socket.read_exact(&mut buffer)).await.unwrap();
    buffer
}

/// Writes until every buffer on the way is full: until a write has waited for a moment. Returns the number of bytes.
async fn fill(socket: &mut TcpStream) -> usize {
    let mut bytes = 0;
    while let Ok(written) = timeout(Duration::from_millis(300), socket.write(&[0xaa; 16 * 1024])).await {
        bytes += written.unwrap();
    }
    bytes
}

/// Waits until the other end's kernel has everything that was written.
async fn delivered(stream: &TcpStream) {
    within(async {
        while !Socket::queue(stream).is_some_and(SendQueue::is_delivered) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits for a reset without reading, so that unread bytes do not hide it.
async fn sees_reset(socket: &TcpStream) {
    assert_eq!(within(socket_fault(socket)).await, Fault::Reset);
}

fn assert_reset(end: &io::Result<()>) {
    let kind = end.as_ref().map_err(io::Error::kind);
    assert_eq!(
        kind,
        Err(io::ErrorKind::ConnectionReset),
        "a stream that was reset must not look complete"
    );
}
