//! TLS alerts: they tell the TLS library of a refused client why it is refused.
//!
//! ```text
//! the record of one alert, RFC 8446 sections 5.1 and 6
//!   +------+---------+-------+-----------+-------------+
//!   | 0x15 | version | 00 02 | 02: fatal | description |
//!   +------+---------+-------+-----------+-------------+
//! ```

/// Why a TLS client is refused. The numbers are those of RFC 8446, section 6, and the choice among them follows
/// section 6.2. A client "has no route" here if a route refuses it, or if no route takes it and there is no default
/// pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// A handshake message or a record of another type than the ClientHello's, or an empty record. Or a PostgreSQL
    /// client has asked for TLS, or has sent the first byte of TLS, but what follows is not TLS.
    UnexpectedMessage = 10,
    /// A record that is longer than a record may be.
    RecordOverflow = 22,
    /// A client that sent no name and does not offer TLS 1.3 has no route. Or the server of a PostgreSQL client does
    /// not agree to TLS, or sends more than its agreement.
    HandshakeFailure = 40,
    /// The ClientHello can be read but contradicts a rule, or it is longer than `hello_max`.
    IllegalParameter = 47,
    /// A guard refuses the client. Or a PostgreSQL client that has sent only an SSLRequest has no route.
    AccessDenied = 49,
    /// The ClientHello cannot be read: a length or a value is out of its range.
    DecodeError = 50,
    /// TLS is terminated here, and the client offers no version that we accept.
    ProtocolVersion = 70,
    /// There is no server for the client, or none with room; or its server does not answer a request for TLS.
    InternalError = 80,
    /// The ClientHello took longer than `hello_timeout`, or the client was evicted because `HelloMemory` was used up.
    ///
    /// RFC 8446, section 6.1, says that this alert generally is a warning, followed by `close_notify`. It is sent as
    /// fatal here: OpenSSL and rustls skip the warning, and then report no more than that the connection was closed.
    /// They report the fatal alert by its name.
    UserCanceled = 90,
    /// A client that sent no name and offers TLS 1.3 has no route. Only TLS 1.3 has this alert.
    MissingExtension = 109,
    /// A client that sent a name has no route.
    UnrecognizedName = 112,
    /// A PostgreSQL client begins TLS without an SSLRequest, although the servers of its pool do not expect that. Or
    /// it does so where TLS is terminated here, and does not offer the ALPN protocol of PostgreSQL (RFC 7301, section
    /// 3.2).
    NoApplicationProtocol = 120,
}

/// A TLS record with one alert.
pub type AlertRecord = [u8; 7];

/// TLS 1.0 as on the wire.
const TLS_1_0: u16 = 0x0301;

impl Alert {
    /// The record of a fatal alert. Its version is 03 03, but 03 01 for a client that offers nothing later than TLS
    /// 1.0. `newest_version`: the newest version that the client offers; `None` where there is no whole ClientHello.
    #[must_use]
    pub fn record(self, newest_version: Option<u16>) -> AlertRecord {
        let is_old = newest_version.is_some_and(|version| version <= TLS_1_0);
        let minor = if is_old { 1 } else { 3 };
        [21, 3, minor, 0, 2, 2, self as u8]
    }
}
