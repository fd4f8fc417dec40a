//! The limits of a relay, and how it can end.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use crate::socket::Fault;

/// How long a relay may go on without traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// The longest time without a byte in either direction. `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// The longest time without a byte after one side has finished. `None`: no limit.
    pub half_close_timeout: Option<Duration>,
    /// Whether the session is over when the server has finished: then a client that has everything has
    /// [`FOLLOW_TIMEOUT`](super::FOLLOW_TIMEOUT) to finish, too.
    pub ends_with_server: bool,
}

/// One of the two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The peer that connected to us.
    Client,
    /// The peer we connected to.
    Server,
}

impl Side {
    /// The other peer.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Both sides have finished, this one first. Or this side has finished, and the client has then been silent for as
    /// long as it may be when the session [ends with the server](RelayLimits::ends_with_server).
    Finished(Side),
    /// A connection was reset, but no byte was lost: the client had finished, and all bytes that were read had been
    /// sent on. If the connection to the server was reset, the server had finished, too. A close_notify of TLS counts
    /// as the end of a stream. The value is the side that finished first.
    ///
    /// This is usual when the last bytes of one side, such as its close_notify, reach a side that is gone.
    ResetAfterEnd(Side),
    /// The connection of this side broke.
    Broke(Side, Fault),
    /// No byte for [`RelayLimits::idle_timeout`].
    Idle(Pending),
    /// No byte for [`RelayLimits::half_close_timeout`] after one side had finished.
    HalfClosed(Pending),
    /// The session was cut.
    Cut,
    /// The session was asked to end at rest, and was at rest: nothing is unsent, the peers have acknowledged
    /// everything, and the last byte came from the server.
    AtRest,
}

/// A request from outside about the end of a session.
#[derive(Clone, Copy, Debug)]
pub enum EndRequest<'a> {
    /// End at once, whatever the session does.
    Cut,
    /// End only if the session is at rest now ([`Closed::AtRest`]). If bytes are on their way, that is noted.
    IfAtRest(&'a DeliveryNotes),
    /// Do not end: only note whether bytes are on their way.
    NoteDelivery(&'a DeliveryNotes),
}

/// How many end requests have found bytes on their way: read and not yet acknowledged by the receiver, or held back
/// unread. The count wraps.
#[derive(Debug, Default)]
pub struct DeliveryNotes(AtomicU8);

impl DeliveryNotes {
    /// Counts a request that has found bytes on their way.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn count(&self) -> u8 {
        self.0.load(Relaxed)
    }
}

/// Whether bytes were still to be delivered when a relay ended by silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Everything that was read has been delivered.
    Nothing,
    /// Some bytes were not delivered: the end must not look complete.
    Bytes,
}

impl Closed {
    /// Whether both sides must be reset, so that the end does not look like a complete answer, and the server does not
    /// work on for a client that is gone.
    #[must_use]
    pub const fn is_abrupt(self) -> bool {
        match self {
            Self::Finished(_) | Self::Idle(Pending::Nothing) | Self::HalfClosed(Pending::Nothing) | Self::AtRest => {
                false
            }
            Self::ResetAfterEnd(_)
            | Self::Broke(..)
            | Self::Idle(Pending::Bytes)
            | Self::HalfClosed(Pending::Bytes)
            | Self::Cut => true,
        }
    }
}
