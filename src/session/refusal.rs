//! Why a session ends before bytes are relayed.

use crate::account::Ending;
use crate::dial::DialError;
use crate::guard::GuardReason;
use crate::plan::Protocol;
use crate::redirect::BAD_REQUEST;
use crate::refuse::{PlainRefusal, PostgresError, Reply};
use crate::relay::Side;
use crate::sniff::alert::Alert;
use crate::sniff::hello::Hello;
use crate::sniff::postgres::InvalidPacket;
use crate::sniff::{PostgresOpening, SniffError, SniffFailure, Sniffed};
use crate::socket::Fault;
use crate::tls::{HandshakeError, TlsConnection, is_about_client_certificate};

/// Why a step of a session failed, and the reply to the client.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A guard refuses the client for this reason, with this reply.
    Guard(GuardReason, Reply),
    /// There is no valid PROXY header where one is expected.
    ProxyHeader(SniffFailure),
    /// The listener accepts connections only from certain peers, such as proxies in front of it. The peer is not one of
    /// them.
    UntrustedPeer,
    /// The first bytes do not show where the client wants to go.
    Sniff(SniffError),
    /// No route takes the client, and the listener has no default pool.
    NoRoute(Reply),
    /// A route refuses the client, or a rule of the listener or of the pool does.
    Refused(Reply),
    /// The servers of the pool expect a PROXY header, and the client's socket has no local address for it.
    NoLocalAddress(Fault),
    /// The client does not send TLS, although TLS is to be terminated here.
    NotTls,
    /// The TLS handshake with the client failed. If TLS has an alert for the failure, it was sent.
    Handshake(HandshakeError),
    /// No connection to a server was made.
    DialError(DialError, Reply),
    /// The client gets this reply instead of a server, for example the response to an HTTP request, or a refusal that
    /// is already encrypted because the client's TLS is terminated here.
    Responded(Ending, Reply),
    /// The server did not agree to TLS.
    ServerRefusedTls(Reply),
    /// The server did not answer a request for TLS.
    Unanswered(Ending, Reply),
    /// A connection broke during the login of a PostgreSQL session.
    Broke(Side, Fault),
    /// The connection was only for a request to cancel a query, and nothing is left to do.
    Cancelled,
    /// The session was ended from outside: by an operator, a drain, or because of its server.
    Cut(Ending),
}

impl Refusal {
    /// The ending that the session's record gets.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::ProxyHeader(SniffFailure::ProxyHeader(_) | SniffFailure::TooLong) => Ending::ProxyInvalid,
            Self::ProxyHeader(failure) => ending_of_sniff(failure),
            Self::UntrustedPeer => Ending::Denied,
            Self::Guard(reason, _) if reason.is_address() => Ending::Denied,
            Self::Guard(..) => Ending::Limited,
            Self::Sniff(error) => ending_of_sniff(&error.reason),
            Self::NoRoute(_) => Ending::NoRoute,
            Self::Refused(_) => Ending::Refused,
            Self::DialError(DialError::NoServer, _) => Ending::NoServer,
            Self::DialError(DialError::ConnectFailed, _) => Ending::ConnectFailed,
            Self::DialError(DialError::ServersFull, _) => Ending::ServersFull,
            Self::DialError(DialError::QueueFull, _) => Ending::QueueFull,
            Self::DialError(DialError::QueueTimeout, _) => Ending::QueueTimeout,
            Self::DialError(DialError::ClientLeft, _) => Ending::ClientLeftEarly,
            Self::DialError(DialError::ClientFault(fault), _) | Self::NoLocalAddress(fault) => {
                ending_of_fault(Side::Client, *fault)
            }
            Self::ServerRefusedTls(_) => Ending::ServerRefusedTls,
            Self::NotTls => Ending::TlsFailed,
            Self::Handshake(HandshakeError::LeftEarly) => Ending::ClientLeftEarly,
            Self::Handshake(HandshakeError::Io(error)) => ending_of_fault(Side::Client, Fault::classify(error)),
            Self::Handshake(HandshakeError::Tls(error)) if is_about_client_certificate(error) => {
                Ending::TlsClientRefused
            }
            Self::Handshake(HandshakeError::Tls(_)) => Ending::TlsFailed,
            Self::Handshake(HandshakeError::NoRoom | HandshakeError::TooSlow) => Ending::HelloTimeout,
            Self::Broke(side, fault) => ending_of_fault(*side, *fault),
            Self::Cancelled => Ending::Cancel,
            Self::Responded(ending, _) | Self::Unanswered(ending, _) | Self::Cut(ending) => *ending,
        }
    }

    /// The reply that the client gets.
    pub(super) fn reply(self) -> Reply {
        match self {
            Self::Sniff(error) => reply_to_sniff_error(&error),
            Self::ProxyHeader(_) => Reply::Close,
            Self::UntrustedPeer => Reply::Reset,
            Self::Guard(_, reply)
            | Self::NoRoute(reply)
            | Self::Refused(reply)
            | Self::DialError(_, reply)
            | Self::Responded(_, reply)
            | Self::Unanswered(_, reply)
            | Self::ServerRefusedTls(reply) => reply,
            // The alert was sent.
            Self::Handshake(HandshakeError::Tls(_)) => Reply::End,
            Self::NotTls | Self::Handshake(_) | Self::Cancelled => Reply::Close,
            Self::NoLocalAddress(_) | Self::Broke(..) | Self::Cut(_) => Reply::Reset,
        }
    }

    /// This refusal for a client whose TLS is terminated here: its reply is encrypted.
    pub(super) fn within_tls(self, tls: &mut TlsConnection) -> Self {
        Self::Responded(self.ending(), encrypted(self.reply(), tls))
    }
}

/// Encrypts a reply for a client whose TLS is terminated here, and appends a close_notify alert. [`Reply::Close`] and
/// [`Reply::End`] become this alert alone.
pub(super) fn encrypted(reply: Reply, tls: &mut TlsConnection) -> Reply {
    let message = match reply {
        Reply::Message(message) => message,
        Reply::Close | Reply::End => Vec::new(),
        // A reset has no bytes to encrypt. The alerts are for clients whose handshake is not complete.
        Reply::Alert(_) | Reply::AlertAfterHello(_) | Reply::Reset => return reply,
    };
    let mut records = Vec::new();
    let result = if message.is_empty() {
        Ok(())
    } else {
        tls.encrypt(&message, message.len(), &mut records)
    };
    if result.is_err() {
        return Reply::Close; // the peer sent an alert, or something that is not TLS
    }
    tls.close(&mut records);
    Reply::Message(records)
}

fn ending_of_sniff(failure: &SniffFailure) -> Ending {
    match failure {
        SniffFailure::TooSlow => Ending::HelloTimeout,
        SniffFailure::TooLong => Ending::HelloTooLong,
        SniffFailure::LeftEarly => Ending::ClientLeftEarly,
        SniffFailure::Io(error) => ending_of_fault(Side::Client, Fault::classify(error)),
        SniffFailure::ProxyHeader(_) => Ending::ProxyInvalid,
        SniffFailure::Request(_) => Ending::RequestInvalid,
        SniffFailure::Invalid(_) | SniffFailure::Packet(_) => Ending::HelloInvalid,
    }
}

fn reply_to_sniff_error(error: &SniffError) -> Reply {
    match (&error.reason, error.alert()) {
        (SniffFailure::Request(_), _) => Reply::Message(BAD_REQUEST.into()),
        // A packet of invalid length gets no message: its sender may not speak the protocol of PostgreSQL.
        (SniffFailure::Packet(invalid @ (InvalidPacket::Version | InvalidPacket::Content)), _) => {
            Reply::Message(PostgresError::Packet(*invalid).response(None))
        }
        (_, Some(alert)) => Reply::Alert(alert.record(None)),
        (_, None) => Reply::Close,
    }
}

/// The reply to a client, in the protocol that its first bytes show, otherwise in that of the listener.
///
/// `alert` makes the alert for a client of TLS. It gets the client's ClientHello, or `None` if the client has only sent
/// an SSLRequest. `error` is the reply to a PostgreSQL client; it also selects the corresponding reply in the other
/// protocols.
pub(super) fn reply(
    sniffed: Option<&Sniffed>,
    protocol: Protocol,
    alert: impl FnOnce(Option<&Hello>) -> Alert,
    error: PostgresError,
) -> Reply {
    if let Some(PostgresOpening::SslRequest) = sniffed.and_then(Sniffed::postgres) {
        return Reply::AlertAfterHello(alert(None).record(None));
    }
    let plain = match error {
        PostgresError::NoServer => PlainRefusal::NoServer,
        PostgresError::Limited => PlainRefusal::Limited,
        _ => PlainRefusal::NotAllowed,
    };
    let (hello, startup) = (sniffed.and_then(Sniffed::hello), sniffed.and_then(Sniffed::startup));
    match (hello, startup, protocol) {
        (Some(hello), ..) => Reply::Alert(alert(Some(hello)).record(Some(hello.newest_version))),
        (None, Some(startup), _) => Reply::Message(error.response(Some(startup))),
        (None, None, Protocol::Mysql) => Reply::Message(plain.mysql()),
        (None, None, Protocol::Redis) => Reply::Message(plain.redis()),
        (None, None, Protocol::Tcp | Protocol::Postgres { .. }) => Reply::Close,
    }
}

/// The ending of a session in which the connection to this side failed.
pub(super) fn ending_of_fault(side: Side, fault: Fault) -> Ending {
    match (side, fault) {
        (Side::Client, Fault::Reset) => Ending::ClientReset,
        (Side::Client, Fault::Lost) => Ending::ClientLost,
        (Side::Client, Fault::Truncated) => Ending::ClientTruncated,
        (Side::Server, Fault::Truncated) => Ending::ServerTruncated,
        (Side::Client, Fault::Tls) => Ending::TlsFailed,
        (Side::Server, Fault::Tls) => Ending::ServerTlsFailed,
        (Side::Server, Fault::Reset) => Ending::ServerReset,
        (Side::Server, Fault::Lost) => Ending::ServerLost,
    }
}
