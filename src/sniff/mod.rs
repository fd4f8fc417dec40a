//! Reads as much of a client's first bytes as it takes to route the client.
//!
//! [`hello`], [`http`] and [`postgres`] are pure: they say what a prefix proves. `preface` does the IO for them, with
//! one buffer and one deadline for each call. [`alert`] is what a TLS client gets when it is refused.

pub mod alert;
pub mod hello;
pub mod postgres;
pub mod http;
mod memory;
mod held;
mod preface;
mod proxy_header;
mod negotiation;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use self::alert::Alert;
pub use self::held::HeldBytes;
use self::hello::{Hello, HelloReader, HelloVerdict};
use self::http::{HttpReader, HttpVerdict, RequestHead};
pub use self::memory::{FirstBytes, HelloMemory, LARGE_BUFFER_BYTES};
use self::negotiation::PostgresReader;
pub use self::negotiation::{TlsAnswer, TlsStart};
use self::postgres::{CancelKey, StartupMessage};
use self::preface::{Inspection, Preface, PrefaceReader};
pub use self::preface::{SniffFailure, SniffLimits};
use self::proxy_header::ProxyHeaderReader;
use crate::proxy_protocol::{HEADER_BYTES_MAX, ProxyHeader};

/// The result of reading the first bytes of a client.
#[derive(Debug)]
pub struct Sniffed {
    /// The kind of the bytes.
    pub opening: Opening,
    /// The opening, and what may have come right behind it: to be sent on unchanged, unless TLS is terminated here.
    /// Sniffing reads no more once they are `hello_bytes_max` bytes. More may have come with a PROXY header, and
    /// [`Self::push`] may add more.
    pub first: FirstBytes,
}

/// The kind of the first bytes of a client.
#[derive(Debug)]
pub enum Opening {
    /// A ClientHello.
    Hello(Hello),
    /// Not TLS, which a single byte may prove.
    NotTls,
    /// The client of a listener that expects PostgreSQL: see [`sniff_postgres`]. Boxed, so that the result for other
    /// clients stays small.
    Postgres(Box<PostgresClient>),
}

/// A PostgreSQL client, as far as its first bytes show.
#[derive(Debug)]
pub struct PostgresClient {
    /// How it begins.
    pub opening: PostgresOpening,
    /// How many bytes its requests had that we have answered. They are not for the server.
    pub bytes_answered: usize,
}

/// How a PostgreSQL client begins, apart from the requests that must be answered before it can be routed.
#[derive(Debug)]
pub enum PostgresOpening {
    /// A ClientHello, and how the client came to send it.
    Tls(Hello, TlsStart),
    /// An SSLRequest, which the server is to answer.
    SslRequest,
    /// A session. The StartupMessage came in the clear, or within TLS that is terminated here.
    Session(StartupMessage),
    /// A CancelRequest with this key.
    Cancel(CancelKey),
}

impl Sniffed {
    /// The word for the logs if the client of a listener that does not expect PostgreSQL sent an SSLRequest or a
    /// GSSENCRequest. A request that comes in pieces is not recognized: the first byte proves that it is not TLS, and
    /// no more is read.
    #[must_use]
    pub fn stray_postgres_request(&self) -> Option<&'static str> {
        match (&self.opening, self.first.as_slice()) {
            (Opening::NotTls, bytes) if bytes == postgres::SSL_REQUEST => Some("postgres_ssl_request"),
            (Opening::NotTls, bytes) if bytes == postgres::GSSENC_REQUEST => Some("postgres_gssenc_request"),
            _ => None,
        }
    }

    /// Whether the client has begun with an HTTP request instead of TLS (RFC 9112, section 3).
    #[must_use]
    pub fn is_http_request(&self) -> bool {
        let mut words = self.first.as_slice().split(|byte| *byte == b' ');
        let method = words.next().unwrap_or_default();
        let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
        let has_target = words.next().is_some_and(|target| {
            // `OPTIONS *` and CONNECT have targets without a slash: the version behind the target shows what they are.
            target.starts_with(b"/") || words.next().is_some_and(|version| version.starts_with(b"HTTP/"))
        });
        matches!(self.opening, Opening::NotTls) && is_method && has_target
    }

    /// Whether the bytes so far, except for a space at the end, may be an HTTP method or the beginning of a method.
    #[must_use]
    pub fn may_be_http_method(&self) -> bool {
        let bytes = self.first.as_slice();
        let method = bytes.strip_suffix(b" ").unwrap_or(bytes);
        let is_method =
            (1..=HTTP_METHOD_BYTES_MAX).contains(&method.len()) && method.iter().all(u8::is_ascii_uppercase);
        matches!(self.opening, Opening::NotTls) && is_method
    }

    /// Appends bytes that have come later.
    pub fn push(&mut self, fresh: &[u8]) {
        let needed = self.first.as_slice().len() + fresh.len();
        self.first.push(fresh, needed); // with this bound the buffer does not double
    }

    /// The ClientHello, if the client has sent it.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        match &self.opening {
            Opening::Hello(hello) => Some(hello),
            Opening::NotTls => None,
            Opening::Postgres(client) => match &client.opening {
                PostgresOpening::Tls(hello, _) => Some(hello),
                _ => None,
            },
        }
    }

    /// The ClientHello, and the bytes that it came in.
    #[must_use]
    pub fn into_hello(self) -> Option<(Hello, FirstBytes)> {
        let hello = match self.opening {
            Opening::Hello(hello) => hello,
            Opening::NotTls => return None,
            Opening::Postgres(client) => match client.opening {
                PostgresOpening::Tls(hello, _) => hello,
                _ => return None,
            },
        };
        Some((hello, self.first))
    }

    /// How the client begins, on a listener that expects PostgreSQL.
    #[must_use]
    pub fn postgres(&self) -> Option<&PostgresOpening> {
        match &self.opening {
            Opening::Postgres(client) => Some(&client.opening),
            Opening::Hello(_) | Opening::NotTls => None,
        }
    }

    /// Bytes read from the client.
    #[must_use]
    pub fn bytes_read(&self) -> usize {
        let answered = match &self.opening {
            Opening::Postgres(client) => client.bytes_answered,
            Opening::Hello(_) | Opening::NotTls => 0,
        };
        answered + self.first.as_slice().len()
    }

    /// The StartupMessage of a PostgreSQL client, if its opening is one.
    #[must_use]
    pub fn startup(&self) -> Option<&StartupMessage> {
        match self.postgres()? {
            PostgresOpening::Session(message) => Some(message),
            _ => None,
        }
    }
}

/// The length of the longest registered HTTP method (`UPDATEREDIRECTREF`).
const HTTP_METHOD_BYTES_MAX: usize = 17;

/// Why a client cannot be routed, and how much was read of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot route the client after {bytes_read} bytes")]
pub struct SniffError {
    /// The failure.
    #[source]
    pub reason: SniffFailure,
    /// Bytes read from the client. They are dropped.
    pub bytes_read: usize,
    /// Whether the client's bytes begin as TLS, or its SSLRequest was accepted.
    pub is_tls: bool,
}

impl SniffError {
    /// The alert for the client; `None`: it is gone, or has not shown that it speaks TLS.
    #[must_use]
    pub fn alert(&self) -> Option<Alert> {
        match &self.reason {
            SniffFailure::Invalid(malformed) => Some(malformed.alert),
            SniffFailure::TooLong => self.is_tls.then_some(Alert::IllegalParameter),
            SniffFailure::TooSlow => self.is_tls.then_some(Alert::UserCanceled),
            SniffFailure::ProxyHeader(_)
            | SniffFailure::Packet(_)
            | SniffFailure::Request(_)
            | SniffFailure::LeftEarly
            | SniffFailure::Io(_) => None,
        }
    }
}

/// The bounds on the head of an HTTP request.
const HTTP_HEAD_LIMITS: SniffLimits = SniffLimits {
    hello_timeout: Duration::from_secs(5),
    hello_bytes_max: 16 << 10,
};

/// Reads until it is clear how the client begins, within `limits`, whose time counts from `accepted_at`. `first` has
/// the bytes that were read already; further ones are added to them, and charged to `memory`. A client that has sent
/// nothing yet costs no buffer.
///
/// Dropping the future loses what was read: the client cannot be served after that.
///
/// # Errors
/// Why the client cannot be routed.
pub async fn sniff<S>(
    socket: &mut S,
    limits: &SniffLimits,
    accepted_at: Instant,
    memory: &Arc<HelloMemory>,
    first: Option<Box<FirstBytes>>,
) -> Result<Sniffed, SniffError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut preface = Preface::new(socket, limits, accepted_at, memory, first);
    let read = preface.read(&mut HelloReader::new(limits.hello_bytes_max)).await;
    // Used only if there was an error. Bytes that do not begin with 0x16 0x03, as TLS does, give `NotTls`, not an
    // error: so a client that has sent two bytes before an error has begun TLS.
    let is_tls = preface.bytes_read() >= 2;
    let (opening, first) = preface.finish(read, is_tls)?;
    Ok(Sniffed { opening, first })
}

/// As [`sniff`], for a client of PostgreSQL. Its requests for encryption are answered on the way: those for TLS as
/// `tls` says; a GSSENCRequest is always refused.
///
/// # Errors
/// As [`sniff`].
pub async fn sniff_postgres<S>(
    socket: &mut S,
    limits: &SniffLimits,
    accepted_at: Instant,
    memory: &Arc<HelloMemory>,
    first: Option<Box<FirstBytes>>,
    tls: TlsAnswer,
) -> Result<Sniffed, SniffError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut preface = Preface::new(socket, limits, accepted_at, memory, first);
    let mut reader = PostgresReader::new(tls, limits.hello_bytes_max);
    let read = preface.read(&mut reader).await;
    let bytes_answered = preface.answered();
    let (opening, first) = preface.finish(read, reader.is_tls())?;
    Ok(Sniffed {
        opening: Opening::Postgres(Box::new(PostgresClient {
            opening,
            bytes_answered,
        })),
        first,
    })
}

/// Reads the PROXY header of a peer in front: at most [`HEADER_BYTES_MAX`] bytes, within `hello_timeout` from
/// `accepted_at`. Returns the header (`None`: there is none) and the bytes behind it; without a header, all bytes that
/// were read. Where no header is required, a peer that has sent nothing in time counts as one without a header: its
/// client may wait for the server to speak first.
///
/// # Errors
/// The header is invalid, is missing where one is required, or does not come in time; or the peer has left.
pub async fn read_proxy_header<S>(
    socket: &mut S,
    is_required: bool,
    hello_timeout: Duration,
    accepted_at: Instant,
    memory: &Arc<HelloMemory>,
) -> Result<(Option<Box<ProxyHeader>>, FirstBytes), SniffError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = SniffLimits {
        hello_timeout,
        hello_bytes_max: HEADER_BYTES_MAX,
    };
    let mut preface = Preface::new(socket, &limits, accepted_at, memory, None);
    let read = match preface.read(&mut ProxyHeaderReader { is_required }).await {
        Err(SniffFailure::TooSlow) if !is_required && preface.bytes_read() == 0 => Ok(None),
        read => read,
    };
    let is_tls = false;
    let (found, mut first) = preface.finish(read, is_tls)?;
    let header = found.map(|(header, length)| {
        first.drop_front(length);
        header
    });
    Ok((header, first))
}

/// Reads the head of an HTTP request, of at most 16 KiB and within 5 s of accept. Returns it and the number of bytes
/// read.
///
/// Dropping the future loses what was read: the client cannot be served after that.
///
/// # Errors
/// Why the request cannot be redirected.
pub async fn sniff_http<S>(
    socket: &mut S,
    accepted_at: Instant,
    memory: &Arc<HelloMemory>,
    first: Option<Box<FirstBytes>>,
) -> Result<(RequestHead, usize), SniffError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut preface = Preface::new(socket, &HTTP_HEAD_LIMITS, accepted_at, memory, first);
    let read = preface.read(&mut HttpReader::default()).await;
    let is_tls = false;
    let (head, bytes) = preface.finish(read, is_tls)?;
    Ok((head, bytes.as_slice().len()))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Preface<'_, S> {
    /// The result, with the bytes that were read; or the error, with their number.
    fn finish<T>(self, read: Result<T, SniffFailure>, is_tls: bool) -> Result<(T, FirstBytes), SniffError> {
        match read {
            Ok(found) => Ok((found, self.into_bytes())),
            Err(reason) => Err(SniffError {
                reason,
                bytes_read: self.bytes_read(),
                is_tls,
            }),
        }
    }
}

impl PrefaceReader for HttpReader {
    type Found = RequestHead;

    fn inspect(&mut self, bytes: &[u8]) -> Inspection<RequestHead> {
        match self.advance(bytes) {
            HttpVerdict::Head(head) => Inspection::Found(head),
            HttpVerdict::NeedMore => Inspection::NeedMore,
            HttpVerdict::Invalid(invalid) => Inspection::Invalid(SniffFailure::Request(invalid)),
        }
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
