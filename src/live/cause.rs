//! The cause for which sessions of a server are closed.

use std::time::Duration;

use tokio::time::Instant;

use crate::account::Ending;

/// Why sessions of a server are closed, and over what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// How they end.
    pub ending: Ending,
    /// The time over which they are closed.
    pub over: Duration,
    /// When the server was last seen serving. Sessions that connected later, and sessions that still await the
    /// server's first answer, are closed at once: if the server hangs and runs again, it must not serve them, because
    /// it may be an old primary by then. The other sessions are closed over the time `over`. `None`: all sessions are
    /// closed over that time.
    pub at_once_since: Option<Instant>,
}

impl Cause {
    /// All sessions are closed over this time.
    #[must_use]
    pub const fn paced(ending: Ending, over: Duration) -> Self {
        Self {
            ending,
            over,
            at_once_since: None,
        }
    }

    /// Combines both causes. `over` is the shorter of both times. The other fields are those of `other` if `other` has
    /// an `at_once_since`; otherwise they are those of `self`.
    #[must_use]
    pub fn combined_with(self, other: Self) -> Self {
        let cause = if other.at_once_since.is_some() { other } else { self };
        Self {
            over: self.over.min(other.over),
            ..cause
        }
    }
}
