//! A connection of a client or a server, with or without TLS, whose bytes on the socket are counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::order::Pace;
use crate::pattern::Pattern;

/// How many bytes a socket has sent and received so far; outlives the socket.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

/// A socket whose bytes are counted.
pub struct Counted {
    socket: TcpStream,
    tally: Arc<Tally>,
}

impl Counted {
    pub fn new(socket: TcpStream, tally: &Arc<Tally>) -> Self {
        let _ = socket.set_nodelay(true); // Linux sets it even if the peer is gone already
        Self {
            socket,
            tally: Arc::clone(tally),
        }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.socket
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, into))?;
        self.tally
            .received
            .fetch_add((into.filled().len() - before) as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.tally.sent.fetch_add(sent as u64, Relaxed);
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A connection: a plain or a TLS stream.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    fn socket(&mut self) -> &mut Counted;
}

impl Wire for Counted {
    fn socket(&mut self) -> &mut Counted {
        self
    }
}

impl Wire for TlsStream<Counted> {
    fn socket(&mut self) -> &mut Counted {
        self.get_mut().0
    }
}

/// Sets whether closing the socket resets the connection.
pub fn reset_when_closed(socket: &TcpStream, resets: bool) {
    // Linux sets it even if the connection has ended already.
    let _ = SockRef::from(socket).set_linger(resets.then_some(Duration::ZERO));
}

/// Sends this many bytes of a pattern.
pub async fn send(
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    mut what: Pattern,
    bytes: u32,
    pace: Pace,
) -> io::Result<()> {
    let mut left = usize::try_from(bytes).expect("a usize has at least 32 bits");
    while left > 0 {
        let next = what.next(left.min(pace.chunk()));
        to.write_all(next).await?;
        to.flush().await?;
        left -= next.len();
        pace.rest().await;
    }
    Ok(())
}

/// Receives this many bytes of a pattern.
///
/// # Errors
/// Read errors, `UnexpectedEof` when the other side half-closes early, and `InvalidData` when the bytes differ.
pub async fn receive(
    from: &mut (impl AsyncRead + Unpin + ?Sized),
    mut what: Pattern,
    bytes: u32,
    pace: Pace,
) -> io::Result<()> {
    let mut left = usize::try_from(bytes).expect("a usize has at least 32 bits");
    let mut buffer = vec![0; pace.chunk().min(left)];
    while left > 0 {
        let room = buffer.len().min(left);
        let count = from.read(&mut buffer[..room]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !what.continues_with(&buffer[..count]) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "wrong content"));
        }
        left -= count;
        pace.rest().await;
    }
    Ok(())
}

/// Receives the end of the content (with TLS, close_notify) and the end of the stream.
pub async fn receive_end(wire: &mut dyn Wire) -> io::Result<()> {
    if wire.read(&mut [0]).await? > 0 || wire.socket().read(&mut [0]).await? > 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more bytes than expected"));
    }
    Ok(())
}

/// Sends one pattern and receives another at the same time.
pub async fn exchange(
    wire: &mut dyn Wire,
    sent: (Pattern, u32),
    received: (Pattern, u32),
    pace: Pace,
) -> io::Result<()> {
    let (mut reading, mut writing) = split(wire);
    tokio::try_join!(
        send(&mut writing, sent.0, sent.1, pace),
        receive(&mut reading, received.0, received.1, pace),
    )
    .map(drop)
}
