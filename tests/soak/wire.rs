//! A connection as either side holds it: TLS or not, with every byte of the socket counted.

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

/// Bytes of a socket so far, whatever becomes of it.
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
        let _ = socket.set_nodelay(true); // of a peer that is gone already
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

/// What can be talked over.
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

/// Whether closing it resets it, from now on.
pub fn reset_when_closed(socket: &TcpStream, resets: bool) {
    // Fails only where there is nobody left to be told.
    let _ = SockRef::from(socket).set_linger(resets.then_some(Duration::ZERO));
}

/// Sends so much of a pattern.
pub async fn send(
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    mut what: Pattern,
    bytes: u32,
    pace: Pace,
) -> io::Result<()> {
    let mut left = usize::try_from(bytes).expect("a usize has 32 bits");
    while left > 0 {
        let next = what.next(left.min(pace.chunk()));
        to.write_all(next).await?;
        to.flush().await?;
        left -= next.len();
        pace.rest().await;
    }
    Ok(())
}

/// Receives so much of a pattern.
///
/// # Errors
/// Also when the other side finishes early (`UnexpectedEof`), and when it is not the pattern (`InvalidData`).
pub async fn receive(
    from: &mut (impl AsyncRead + Unpin + ?Sized),
    mut what: Pattern,
    bytes: u32,
    pace: Pace,
) -> io::Result<()> {
    let mut left = usize::try_from(bytes).expect("a usize has 32 bits");
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

/// Receives the other side's end, of the content and of the connection.
pub async fn receive_end(wire: &mut dyn Wire) -> io::Result<()> {
    let more = io::Error::new(io::ErrorKind::InvalidData, "more than all");
    if wire.read(&mut [0]).await? > 0 || wire.socket().read(&mut [0]).await? > 0 {
        return Err(more);
    }
    Ok(())
}

/// Sends the one and receives the other at the same time.
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
