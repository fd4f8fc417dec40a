//! Why sessions of a server are to be closed.

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
    /// When the server was last seen to serve sessions, if those that were connected to it since, or still wait for its first
    /// answer, are closed at once. They came to it while it hung. It must not serve them when it runs again: it may be an
    /// old primary by then.
    pub ends_since: Option<Instant>,
}

impl Cause {
    /// This cause, but no session is closed later than by the other cause.
    #[must_use]
    pub fn without_delay(self, other: Self) -> Self {
        let cause = if other.ends_since.is_some() { other } else { self };
        Self {
            over: self.over.min(other.over),
            ..cause
        }
    }
}
