//! Reads as much of a client's first bytes as it takes to route it, and refuses a TLS client with a reason.
//!
//! The cores are pure: [`hello`] says what a prefix proves, [`alert`] how a refusal is put. Here is the rim, which reads, and
//! [`refusal`], which answers.

pub mod alert;
mod first;
pub mod hello;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, timeout};

use self::alert::Alert;
pub use self::first::{FirstBytes, HelloMemory, LARGE_BUFFER_BYTES};
use self::hello::{Hello, Malformed, Reader, Verdict};

/// Bounds on what is read before a route is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SniffLimits {
    /// From accept to the whole ClientHello, absolute.
    pub hello_timeout: Duration,
    /// Bytes that may be held for it.
    pub hello_bytes_max: usize,
}

/// A client that can be routed.
#[derive(Debug)]
pub struct Sniffed {
    /// What its first bytes are.
    pub opening: Opening,
    /// All bytes read, to be sent on unchanged: the opening and perhaps what came right behind it. At most
    /// `hello_bytes_max`.
    pub first: FirstBytes,
}

/// How a client begins.
#[derive(Debug)]
pub enum Opening {
    /// With a ClientHello.
    Hello(Hello),
    /// With something that is not TLS: a single byte may prove it.
    NotTls,
}

/// PostgreSQL's SSLRequest: its length, and a code in the place of a protocol version ("Message Formats" in the
/// PostgreSQL documentation). The client waits for one byte of answer before it sends a ClientHello.
const POSTGRES_SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

impl Sniffed {
    /// Whether the client sent PostgreSQL's SSLRequest. One that comes in pieces is not seen: what is not TLS is decided by
    /// its first byte, and nobody waits for more.
    #[must_use]
    pub fn is_postgres_ssl_request(&self) -> bool {
        self.first.as_slice() == POSTGRES_SSL_REQUEST
    }

    /// The ClientHello, if the client speaks TLS.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        match &self.opening {
            Opening::Hello(hello) => Some(hello),
            Opening::NotTls => None,
        }
    }
}

/// Why a client cannot be routed, and how far it got.
#[derive(Debug, thiserror::Error)]
#[error("{reason} (after {bytes_read} bytes)")]
pub struct SniffError {
    /// What went wrong.
    #[source]
    pub reason: SniffFailure,
    /// Bytes read from the client; they are gone.
    pub bytes_read: usize,
}

impl SniffError {
    /// What the client is told; `None`: nothing, as it is gone or has not shown that it speaks TLS.
    #[must_use]
    pub fn alert(&self) -> Option<Alert> {
        match &self.reason {
            SniffFailure::Invalid(malformed) => Some(malformed.alert),
            SniffFailure::TooLong => Some(Alert::IllegalParameter),
            // With two bytes read and no verdict these are the 16 03 of a TLS record.
            SniffFailure::TooSlow => (self.bytes_read >= 2).then_some(Alert::UserCanceled),
            SniffFailure::LeftEarly | SniffFailure::Io(_) => None,
        }
    }
}

/// What goes wrong before there is a whole ClientHello.
#[derive(Debug, thiserror::Error)]
pub enum SniffFailure {
    /// No verdict `hello_timeout` after accept, or it had waited longest when [`HelloMemory`] was used up.
    #[error("the ClientHello took too long")]
    TooSlow,
    /// No verdict within `hello_bytes_max`, or none possible.
    #[error("the ClientHello is too long")]
    TooLong,
    /// It begins as TLS and then is not.
    #[error("no ClientHello: {0}")]
    Invalid(Malformed),
    /// The client finished before there was a verdict.
    #[error("the client left before its ClientHello was whole")]
    LeftEarly,
    /// Reading failed; mostly a reset.
    #[error("the client is gone")]
    Io(#[from] io::Error),
}

/// Reads until it is clear how the client begins. A client that has sent nothing yet costs no buffer.
///
/// Dropping the future loses what was read: the client cannot be served after that.
///
/// # Errors
/// What keeps the client from being routed. Every bound is of `limits`; the time counts from `accepted_at`. What is read
/// is charged to `memory`.
pub async fn sniff<S>(
    socket: &mut S,
    limits: &SniffLimits,
    accepted_at: Instant,
    memory: &Arc<HelloMemory>,
) -> Result<Sniffed, SniffError>
where
    S: AsyncRead + Unpin,
{
    let mut first = FirstBytes::new(memory, accepted_at);
    let time_left = limits.hello_timeout.saturating_sub(accepted_at.elapsed());
    let decided = timeout(time_left, decide(socket, &mut first, limits.hello_bytes_max)).await;
    match decided.unwrap_or(Err(SniffFailure::TooSlow)) {
        Ok(opening) => {
            first.settled();
            Ok(Sniffed { opening, first })
        }
        Err(reason) => Err(SniffError {
            reason,
            bytes_read: first.as_slice().len(),
        }),
    }
}

async fn decide<S>(socket: &mut S, first: &mut FirstBytes, bytes_max: usize) -> Result<Opening, SniffFailure>
where
    S: AsyncRead + Unpin,
{
    let mut reader = Reader::new(bytes_max);
    loop {
        match reader.advance(first.as_slice()) {
            Verdict::Hello(hello) => return Ok(Opening::Hello(hello)),
            Verdict::NotTls => return Ok(Opening::NotTls),
            Verdict::Malformed(malformed) => return Err(SniffFailure::Invalid(malformed)),
            Verdict::TooLong => return Err(SniffFailure::TooLong),
            Verdict::NeedMore if first.as_slice().len() >= bytes_max => return Err(SniffFailure::TooLong),
            Verdict::NeedMore => {
                first.waits();
                let read = poll_fn(|cx| {
                    if first.is_told(cx) {
                        return Poll::Ready(Err(SniffFailure::TooSlow));
                    }
                    poll_some(Pin::new(&mut *socket), cx, first, bytes_max).map_err(SniffFailure::Io)
                });
                if read.await? == 0 {
                    return Err(SniffFailure::LeftEarly);
                }
            }
        }
    }
}

/// Of one read. A usual ClientHello has 250 to 2,000 bytes.
const READ_BYTES_MAX: usize = 4096;

/// Reads once, by way of the stack: `first` grows only by what has come, and nothing is held while nothing comes.
fn poll_some<S: AsyncRead>(
    socket: Pin<&mut S>,
    cx: &mut Context<'_>,
    first: &mut FirstBytes,
    bytes_max: usize,
) -> Poll<io::Result<usize>> {
    let mut scratch = [const { MaybeUninit::uninit() }; READ_BYTES_MAX];
    let room = bytes_max.saturating_sub(first.as_slice().len()).min(READ_BYTES_MAX);
    let mut read = ReadBuf::uninit(&mut scratch[..room]);
    ready!(socket.poll_read(cx, &mut read))?;
    first.push(read.filled(), bytes_max);
    Poll::Ready(Ok(read.filled().len()))
}
