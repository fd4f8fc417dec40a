//! Why a session ends before bytes are relayed.

use crate::account::Ending;
use crate::dial::DialError;
use crate::guard::GuardReason;
use crate::refuse::Reply;
use crate::relay::Side;
use crate::sniff::alert::{Alert, AlertRecord};
use crate::sniff::hello::Hello;
use crate::sniff::{SniffError, SniffFailure};
use crate::socket::Fault;

/// Why a step of a session failed. An alert is there where the client has sent a whole ClientHello.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A guard refuses the client, in this way.
    Guard(GuardReason, Reply),
    /// The first bytes do not tell where the client wants to go.
    Sniff(SniffError),
    /// No route takes the client, and the listener has no default pool.
    NoRoute(Option<AlertRecord>),
    /// A route refuses the client.
    Route(Option<AlertRecord>),
    /// The servers of the pool expect a PROXY header, and the client's socket has no local address for it.
    NoLocalAddress(Fault),
    /// No server was connected to.
    DialError(DialError, Option<AlertRecord>),
    /// The session was ended from outside: by an operator, a drain, or because of its server.
    Cut(Ending),
}

impl Refusal {
    /// How the session is accounted for.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Guard(reason, _) if reason.is_address() => Ending::Denied,
            Self::Guard(..) => Ending::Limited,
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
            Self::Cut(ending) => *ending,
        }
    }

    /// What the client gets last.
    pub(super) fn reply(&self) -> Reply {
        let alert = match self {
            Self::Guard(_, reply) => return *reply,
            Self::Sniff(error) => error.alert().map(|alert| alert.record(None)),
            Self::NoRoute(alert) | Self::Route(alert) | Self::DialError(_, alert) => *alert,
            Self::NoLocalAddress(_) | Self::Cut(_) => return Reply::Reset,
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
        (Side::Server, Fault::Reset) => Ending::ServerReset,
        (Side::Server, Fault::Lost) => Ending::ServerLost,
    }
}
