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
    /// Sessions that connected after this time, and those that still await the server's first answer, are closed at
    /// once; `None`: all are closed over `over`. At this time the server was last seen to serve. Later sessions came
    /// while it hung. They must not be served when it runs again, because it may be an old primary by then.
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

    /// Combines both causes. The result is this one, or `other` if that closes some sessions at once. `over` is the
    /// shorter of both times.
    #[must_use]
    pub fn combined_with(self, other: Self) -> Self {
        let cause = if other.at_once_since.is_some() { other } else { self };
        Self {
            over: self.over.min(other.over),
            ..cause
        }
    }
}
