//! Reads as much of a client's first bytes as it takes to route it.
//!
//! [`hello`] is pure: it says what a prefix proves. `preface` reads: one buffer and one deadline for
//! every reader. [`alert`] is what a TLS client gets when it is refused.

pub mod alert;
pub mod hello;
mod memory;
mod preface;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::time::Instant;

use self::alert::Alert;
use self::hello::{Hello, HelloReader, HelloVerdict};
pub use self::memory::{FirstBytes, HelloMemory, LARGE_BUFFER_BYTES};
use self::preface::{Inspection, Preface, PrefaceReader};
pub use self::preface::{SniffFailure, SniffLimits};

/// What the first bytes of a client say.
#[derive(Debug)]
pub struct Sniffed {
    /// What they are.
    pub opening: Opening,
    /// All bytes read, to be sent on unchanged: the opening, and what may have come right behind it. At most
    /// `hello_bytes_max`.
    pub first: FirstBytes,
}

/// What the first bytes of a client are.
#[derive(Debug)]
pub enum Opening {
    /// A ClientHello.
    Hello(Hello),
    /// Not TLS, which a single byte may prove.
    NotTls,
}

/// PostgreSQL's SSLRequest: its length, and a code in the field of the protocol version ("Message Formats" in the
/// PostgreSQL documentation). The client waits for one byte of answer before it sends a ClientHello.
const POSTGRES_SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// GSSENCRequest, which a client with a Kerberos ticket sends before an SSLRequest.
const POSTGRES_GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

impl Sniffed {
    /// The word for the logs if the client sent PostgreSQL's SSLRequest or GSSENCRequest. One that comes in pieces is not
    /// recognized: the first byte proves that it is not TLS, and no more is read.
    #[must_use]
    pub fn postgres_request(&self) -> Option<&'static str> {
        match self.first.as_slice() {
            bytes if bytes == POSTGRES_SSL_REQUEST => Some("postgres_ssl_request"),
            bytes if bytes == POSTGRES_GSSENC_REQUEST => Some("postgres_gssenc_request"),
            _ => None,
        }
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

/// Why a client cannot be routed, and how much was read of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot route the client after {bytes_read} bytes")]
pub struct SniffError {
    /// What went wrong.
    #[source]
    pub reason: SniffFailure,
    /// Bytes read from the client. They are dropped.
    pub bytes_read: usize,
}

impl SniffError {
    /// The alert for the client; `None`: it is gone, or has not shown that it speaks TLS.
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

/// Reads until it is clear how the client begins. A client that has sent nothing yet costs no buffer.
///
/// Dropping the future loses what was read: the client cannot be served after that.
///
/// # Errors
/// What keeps the client from being routed. The bounds are those of `limits`; the time counts from `accepted_at`. The
/// memory for what is read is charged to `memory`.
pub async fn sniff<S>(
    socket: &mut S,
    limits: &SniffLimits,
    accepted_at: Instant,
    memory: &Arc<HelloMemory>,
) -> Result<Sniffed, SniffError>
where
    S: AsyncRead + Unpin,
{
    let mut preface = Preface::new(socket, limits, accepted_at, memory);
    match preface.read(&mut HelloReader::new(limits.hello_bytes_max)).await {
        Ok(opening) => Ok(Sniffed {
            opening,
            first: preface.into_bytes(),
        }),
        Err(reason) => Err(SniffError {
            reason,
            bytes_read: preface.bytes_read(),
        }),
    }
}

impl PrefaceReader for HelloReader {
    type Found = Opening;

    fn inspect(&mut self, bytes: &[u8]) -> Inspection<Opening> {
        match self.advance(bytes) {
            HelloVerdict::Hello(hello) => Inspection::Found(Opening::Hello(hello)),
            HelloVerdict::NotTls => Inspection::Found(Opening::NotTls),
            HelloVerdict::NeedMore => Inspection::NeedMore,
            HelloVerdict::Malformed(malformed) => Inspection::Invalid(SniffFailure::Invalid(malformed)),
            HelloVerdict::TooLong => Inspection::Invalid(SniffFailure::TooLong),
        }
    }
}
