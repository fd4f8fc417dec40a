//! The first bytes of a client: one buffer and one deadline, and readers that look at the same bytes in turn.
//!
//! From the bytes so far, a reader decides between the variants of [`Inspection`]. To add a reader, implement
//! [`PrefaceReader`] and call [`Preface::read`] before or after the others. The bytes of a PROXY header are not for the
//! server: a `Preface` of its own reads the header, and the next `Preface` begins with the bytes after the header.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::hello::Malformed;
use super::http::InvalidRequest;
use super::memory::{FirstBytes, HelloMemory};
use super::postgres::InvalidPacket;
use crate::proxy_protocol::InvalidHeader;

/// Bounds on the reading of a client's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SniffLimits {
    /// The time until a reader has decided, however many reads that takes; usually counted from accept.
    pub hello_timeout: Duration,
    /// Bytes that may be held of one client.
    pub hello_bytes_max: usize,
}

/// Why the first bytes of a client do not show where it wants to go.
#[derive(Debug, thiserror::Error)]
pub enum SniffFailure {
    /// The reader had not decided within `hello_timeout`. Or [`HelloMemory`] was used up, and this client had waited
    /// longest.
    #[error("the client's first bytes took too long")]
    TooSlow,
    /// The reader had not decided after `hello_bytes_max` bytes, or the message says that it is longer.
    #[error("the client's first message is too long")]
    TooLong,
    /// The bytes begin as TLS but are not a valid ClientHello. Or a PostgreSQL client asked for TLS, but did not
    /// begin it.
    #[error("the ClientHello is invalid")]
    Invalid(#[source] Malformed),
    /// The bytes are not a valid packet of a PostgreSQL client, on a listener for such clients.
    #[error("the first packet is invalid")]
    Packet(#[source] InvalidPacket),
    /// The connection of a peer in front does not begin with a valid PROXY header.
    #[error("the PROXY header is invalid")]
    ProxyHeader(#[source] InvalidHeader),
    /// The bytes are not a valid HTTP request, on a listener that redirects.
    #[error("the request is invalid")]
    Request(#[source] InvalidRequest),
    /// The client ended its stream before the reader had decided.
    #[error("the client left too early")]
    LeftEarly,
    /// Reading, or writing a reply, failed; mostly a reset.
    #[error("the client is gone")]
    Io(#[from] io::Error),
}

/// The verdict of a reader on the bytes so far.
#[derive(Debug)]
pub(super) enum Inspection<T> {
    /// The reader has found this. More bytes would change nothing.
    Found(T),
    /// The reader cannot decide yet.
    NeedMore,
    /// Send this byte: the client waits for it. All bytes so far are a request to us: they are dropped, and the next
    /// inspection begins with the bytes that come after the reply.
    Reply(u8),
    /// The client cannot be served.
    Invalid(SniffFailure),
}

/// A reader of a client's first bytes. It does no IO.
pub(super) trait PrefaceReader {
    /// The result of the reader.
    type Found;

    /// Looks at all bytes that have come, from the first or from the latest reply. Each call brings the bytes of the
    /// previous call, too.
    fn inspect(&mut self, bytes: &[u8]) -> Inspection<Self::Found>;
}

/// A client's first bytes, as far as they were read, and the socket to read more from.
pub(super) struct Preface<'s, S> {
    socket: &'s mut S,
    limits: &'s SniffLimits,
    accepted_at: Instant,
    bytes: FirstBytes,
    /// How many bytes were answered and dropped.
    answered: usize,
}

impl<'s, S: AsyncRead + AsyncWrite + Unpin> Preface<'s, S> {
    /// The preface of a client that was accepted at this time; `first` has the bytes read so far.
    pub(super) fn new(
        socket: &'s mut S,
        limits: &'s SniffLimits,
        accepted_at: Instant,
        memory: &Arc<HelloMemory>,
        first: Option<Box<FirstBytes>>,
    ) -> Self {
        Self {
            socket,
            limits,
            accepted_at,
            bytes: first.map_or_else(|| FirstBytes::new(memory, accepted_at), |first| *first),
            answered: 0,
        }
    }

    /// Reads until the reader has decided, within the limits.
    pub(super) async fn read<R: PrefaceReader>(&mut self, reader: &mut R) -> Result<R::Found, SniffFailure> {
        let deadline = self.accepted_at + self.limits.hello_timeout;
        let decided = timeout_at(deadline, self.read_until_decided(reader)).await;
        decided.unwrap_or(Err(SniffFailure::TooSlow))
    }

    async fn read_until_decided<R: PrefaceReader>(&mut self, reader: &mut R) -> Result<R::Found, SniffFailure> {
        loop {
            match reader.inspect(self.bytes.as_slice()) {
                Inspection::Found(found) => return Ok(found),
                Inspection::Invalid(failure) => return Err(failure),
                Inspection::NeedMore if self.held() >= self.limits.hello_bytes_max => {
                    return Err(SniffFailure::TooLong);
                }
                Inspection::NeedMore => self.bytes.enqueue(),
                Inspection::Reply(byte) => {
                    self.socket.write_all(&[byte]).await?;
                    self.answered += self.held();
                    self.bytes.clear();
                }
            }
            if poll_fn(|cx| self.poll_read(cx)).await? == 0 {
                return Err(SniffFailure::LeftEarly);
            }
        }
    }

    /// Reads once, into a buffer on the stack: `bytes` grows only by what has come, and a silent client costs no
    /// memory.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SniffFailure>> {
        if self.bytes.is_evicted(cx) {
            return Poll::Ready(Err(SniffFailure::TooSlow));
        }
        let mut scratch = [const { MaybeUninit::uninit() }; READ_BYTES_MAX];
        let bytes_max = self.limits.hello_bytes_max;
        let room = bytes_max.saturating_sub(self.held()).min(READ_BYTES_MAX);
        let mut read = ReadBuf::uninit(&mut scratch[..room]);
        ready!(Pin::new(&mut *self.socket).poll_read(cx, &mut read))?;
        self.bytes.push(read.filled(), bytes_max);
        Poll::Ready(Ok(read.filled().len()))
    }

    /// How many bytes were read.
    pub(super) fn bytes_read(&self) -> usize {
        self.answered + self.held()
    }

    /// How many of the bytes read were answered and dropped.
    pub(super) fn answered(&self) -> usize {
        self.answered
    }

    fn held(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// All bytes that were read since the latest reply. From now on the client cannot be evicted.
    pub(super) fn into_bytes(mut self) -> FirstBytes {
        self.bytes.dequeue();
        self.bytes
    }
}

/// The size of one read. A usual ClientHello has 250 to 2,000 bytes.
const READ_BYTES_MAX: usize = 4096;
