//! Reads the packets of a PostgreSQL client up to the one that decides its route, and answers its requests for
//! encryption.
//!
//! ```text
//! client                     us
//!   GSSENCRequest  ────────►
//!                  ◄──────── N
//!   SSLRequest     ────────►
//!                  ◄──────── S, N, or the server's answer
//!   ClientHello, StartupMessage or CancelRequest
//! ```
//!
//! A client may omit either request. One that knows PostgreSQL 17 may begin with its ClientHello ("direct" TLS).

use super::PostgresOpening;
use super::alert::Alert;
use super::hello::{HelloReader, HelloVerdict, Malformed};
use super::postgres::{FirstPacket, InvalidPacket, PacketVerdict, first_packet};
use super::preface::{Inspection, PrefaceReader, SniffFailure};

/// How an SSLRequest is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsAnswer {
    /// `S`: the ClientHello is needed, for example because its name decides where the client goes.
    Yes,
    /// `N`: the StartupMessage decides where the client goes.
    No,
    /// With the answer of the server.
    AskServer,
    /// Not at all: an SSLRequest is an error, because it is already decided whether the client uses TLS.
    AlreadyDecided,
}

/// How a PostgreSQL client came to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsStart {
    /// It sent an SSLRequest, and we answered `S` without asking the server.
    Agreed,
    /// Its first byte is that of a ClientHello (`sslnegotiation=direct`).
    Direct,
}

/// Reads the first packets of a PostgreSQL client.
pub(super) struct PostgresReader {
    tls: TlsAnswer,
    has_asked_for_gss: bool,
    /// Set once the client has begun TLS, or was told to begin it.
    hello: Option<(HelloReader, TlsStart)>,
    hello_bytes_max: usize,
}

/// ContentType `handshake` (RFC 8446, section 5.1). A packet of PostgreSQL cannot begin with this byte: its length
/// would be out of range.
const TLS_HANDSHAKE: u8 = 22;

impl PostgresReader {
    /// A reader that has read nothing yet.
    pub(super) fn new(tls: TlsAnswer, hello_bytes_max: usize) -> Self {
        Self {
            tls,
            has_asked_for_gss: false,
            hello: None,
            hello_bytes_max,
        }
    }

    /// Whether the client has begun TLS, or was told to begin it.
    pub(super) fn is_tls(&self) -> bool {
        self.hello.is_some()
    }

    fn begin_tls(&mut self, start: TlsStart) {
        self.hello = Some((HelloReader::new(self.hello_bytes_max), start));
    }

    /// What to do about a whole packet; `bytes_after` bytes have already come after it.
    fn take(&mut self, packet: FirstPacket, bytes_after: usize) -> Inspection<PostgresOpening> {
        let invalid = |reason| Inspection::Invalid(SniffFailure::Packet(reason));
        match packet {
            FirstPacket::Ssl | FirstPacket::GssEnc if bytes_after > 0 => invalid(InvalidPacket::Smuggled),
            FirstPacket::GssEnc if self.has_asked_for_gss => invalid(InvalidPacket::Repeated),
            FirstPacket::GssEnc => {
                self.has_asked_for_gss = true;
                Inspection::Reply(b'N')
            }
            FirstPacket::Ssl => match std::mem::replace(&mut self.tls, TlsAnswer::AlreadyDecided) {
                TlsAnswer::Yes => {
                    self.begin_tls(TlsStart::Agreed);
                    Inspection::Reply(b'S')
                }
                TlsAnswer::No => Inspection::Reply(b'N'),
                TlsAnswer::AskServer => Inspection::Found(PostgresOpening::SslRequest),
                TlsAnswer::AlreadyDecided => invalid(InvalidPacket::Repeated),
            },
            FirstPacket::Cancel(key) => Inspection::Found(PostgresOpening::Cancel(key)),
            FirstPacket::Startup(message) => Inspection::Found(PostgresOpening::Session(message)),
        }
    }
}

impl PrefaceReader for PostgresReader {
    type Found = PostgresOpening;

    fn inspect(&mut self, bytes: &[u8]) -> Inspection<PostgresOpening> {
        // Only a client that has sent no request for encryption may begin with its ClientHello.
        let may_begin_tls = !self.has_asked_for_gss && self.tls != TlsAnswer::AlreadyDecided;
        if self.hello.is_none() && may_begin_tls && bytes.first() == Some(&TLS_HANDSHAKE) {
            self.begin_tls(TlsStart::Direct);
        }
        let Some((reader, start)) = &mut self.hello else {
            return match first_packet(bytes) {
                PacketVerdict::NeedMore => Inspection::NeedMore,
                PacketVerdict::Packet { packet, bytes: length } => self.take(packet, bytes.len() - length),
                PacketVerdict::Invalid(reason) => Inspection::Invalid(SniffFailure::Packet(reason)),
            };
        };
        match reader.advance(bytes) {
            HelloVerdict::Hello(hello) => Inspection::Found(PostgresOpening::Tls(hello, *start)),
            HelloVerdict::NeedMore => Inspection::NeedMore,
            HelloVerdict::NotTls => Inspection::Invalid(SniffFailure::Invalid(NO_HELLO)),
            HelloVerdict::Malformed(malformed) => Inspection::Invalid(SniffFailure::Invalid(malformed)),
            HelloVerdict::TooLong => Inspection::Invalid(SniffFailure::TooLong),
        }
    }
}

const NO_HELLO: Malformed = Malformed {
    what: "the PostgreSQL client did not begin TLS as expected",
    alert: Alert::UnexpectedMessage,
};
