//! A bound on what a check reads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf, Take};

/// A reader that fails when it is read again after more than `bytes_max` bytes. [`Take`] would report the end of the
/// stream instead, and the check would blame the server for closing.
pub(super) struct Bounded<R> {
    from: Take<R>,
    bytes_max: u64,
}

impl<R: AsyncRead> Bounded<R> {
    pub(super) fn new(from: R, bytes_max: u64) -> Self {
        Self {
            from: from.take(bytes_max + 1), // the byte after the bound shows that there is more
            bytes_max,
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Bounded<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.from.limit() == 0 {
            let kib = self.bytes_max >> 10;
            return Poll::Ready(Err(io::Error::other(format!("the server sends more than {kib} KiB"))));
        }
        Pin::new(&mut self.from).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_than_the_bound_is_an_error() {
        for (sent_bytes, is_read) in [(1024, true), (1025, false)] {
            let sent = vec![b'x'; sent_bytes];
            let mut received = Vec::new();
            let read = Bounded::new(&sent[..], 1024).read_to_end(&mut received).await;
            assert_eq!(read.is_ok(), is_read, "{sent_bytes}: {read:?}");
        }
    }
}
