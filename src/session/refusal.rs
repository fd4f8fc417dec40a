//! Why a session ends before bytes are relayed.

use crate::account::Ending;
use crate::dial::DialError;
use crate::refuse::Reply;
use crate::relay::Side;
use crate::sniff::alert::{Alert, AlertRecord};
use crate::sniff::hello::Hello;
use crate::sniff::{SniffError, SniffFailure};
use crate::socket::Fault;
use crate::tls::{HandshakeError, is_about_client_certificate};

/// Why a step of a session failed. An alert is there where the client has sent a whole ClientHello.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The first bytes do not tell where the client wants to go.
    Sniff(SniffError),
    /// No route takes the client, and the listener has no default pool.
    NoRoute(Option<AlertRecord>),
    /// A route refuses the client.
    Route(Option<AlertRecord>),
    /// The servers of the pool expect a PROXY header, and the client's socket has no local address for it.
    NoLocalAddress(Fault),
    /// What the client sends is not TLS, and its TLS is to end here.
    NotTls,
    /// The TLS handshake failed. If there is an alert for that, it was sent.
    Handshake(HandshakeError),
    /// The TLS handshake was not complete in time.
    HandshakeTimeout,
    /// The client resumed a TLS session, and its certificate has expired since.
    ClientCertificateExpired,
    /// No server was connected to.
    DialError(DialError, Reply),
    /// The session was ended from outside: by an operator, a drain, or because of its server.
    Cut(Ending),
}

impl Refusal {
    /// How the session is accounted for.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Sniff(error) => match &error.reason {
                SniffFailure::TooSlow => Ending::HelloTimeout,
                SniffFailure::TooLong => Ending::HelloTooLong,
                SniffFailure::LeftEarly => Ending::ClientLeftEarly,
                SniffFailure::Io(error) => ending_of_fault(Side::Client, Fault::of(error)),
                SniffFailure::Invalid(_) => Ending::HelloInvalid,
            },
            Self::NoRoute(_) => Ending::NoRoute,
            Self::Route(_) => Ending::Refused,
            Self::DialError(DialError::NoServer, _) => Ending::NoServer,
            Self::DialError(DialError::ConnectFailed, _) => Ending::ConnectFailed,
            Self::DialError(DialError::ClientFault(fault), _) | Self::NoLocalAddress(fault) => {
                ending_of_fault(Side::Client, *fault)
            }
            Self::NotTls => Ending::TlsFailed,
            Self::Handshake(HandshakeError::LeftEarly) => Ending::ClientLeftEarly,
            Self::Handshake(HandshakeError::Io(error)) => ending_of_fault(Side::Client, Fault::of(error)),
            Self::Handshake(HandshakeError::Tls(error)) if is_about_client_certificate(error) => {
                Ending::TlsClientRefused
            }
            Self::Handshake(HandshakeError::Tls(_)) => Ending::TlsFailed,
            Self::HandshakeTimeout => Ending::HelloTimeout,
            Self::ClientCertificateExpired => Ending::TlsClientRefused,
            Self::Cut(ending) => *ending,
        }
    }

    /// What the client gets last.
    pub(super) fn reply(&self) -> Reply {
        let alert = match self {
            Self::Sniff(error) => error.alert().map(|alert| alert.record(None)),
            Self::NoRoute(alert) | Self::Route(alert) => *alert,
            Self::DialError(_, reply) => return *reply,
            Self::Handshake(HandshakeError::Tls(_)) => return Reply::Linger,
            Self::NotTls | Self::Handshake(_) | Self::HandshakeTimeout => return Reply::Close,
            Self::NoLocalAddress(_) | Self::ClientCertificateExpired | Self::Cut(_) => return Reply::Reset,
        };
        alert.map_or(Reply::Close, Reply::Alert)
    }
}

/// The alert for a client whose ClientHello is known.
pub(super) fn alert_record(hello: Option<&Hello>, alert: impl FnOnce(&Hello) -> Alert) -> Option<AlertRecord> {
    hello.map(|hello| alert(hello).record(Some(hello.newest_version)))
}

/// The ending of a session of which one side's socket failed.
pub(super) fn ending_of_fault(side: Side, fault: Fault) -> Ending {
    match (side, fault) {
        (Side::Client, Fault::Reset) => Ending::ClientReset,
        (Side::Client, Fault::Lost) => Ending::ClientLost,
        (Side::Client, Fault::Truncated) => Ending::ClientTruncated,
        (Side::Server, Fault::Truncated) => Ending::ServerTruncated,
        (_, Fault::Tls) => Ending::TlsFailed,
        (Side::Server, Fault::Reset) => Ending::ServerReset,
        (Side::Server, Fault::Lost) => Ending::ServerLost,
    }
}
