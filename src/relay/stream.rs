//! A side of a session as a stream, to read from and write to before bytes are relayed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::TlsSide;
use super::engine::poll::{MaybeTls, Wire};
use crate::tls::TlsConnection;

/// Reads and writes the plaintext of one side.
pub struct SideStream<'a>(MaybeTls<'a>);

impl<'a> SideStream<'a> {
    /// The stream of this side.
    #[must_use]
    pub fn new(side: TlsSide<'a>) -> Self {
        Self(side.wire())
    }

    /// Why TLS has failed, if it has.
    #[must_use]
    pub fn take_error(&self) -> Option<rustls::Error> {
        self.0.take_error()
    }

    /// The TLS of the side, for the relay; `None`: the side has none. The stream must have been flushed.
    #[must_use]
    pub fn into_tls(self) -> Option<TlsConnection> {
        self.0.into_connection()
    }
}

impl AsyncRead for SideStream<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let bytes = ready!(self.0.poll_recv(cx, buffer.initialize_unfilled()))?;
        buffer.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SideStream<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_send(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shut_down(cx).map(Ok)
    }
}
