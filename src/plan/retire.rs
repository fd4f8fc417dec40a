//! When a pool ends healthy sessions: because of their age, or to spread sessions evenly over its servers.

use std::time::Duration;

/// When a pool ends healthy sessions. A session is ended only while it is at rest. But if a session that has reached
/// its age limit is not at rest at any time during a further tenth of `max_age`, it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetirePlan {
    /// Each session has an age limit of its own, 90 % to 110 % of this; `None`: sessions may be of any age.
    pub max_age: Option<Duration>,
    /// The time over which a server's sessions in excess of its share are ended; `None`: they are not ended.
    pub rebalance: Option<Duration>,
    /// A session is at rest only if it has moved no byte for this time.
    pub idle_for: Duration,
}

impl RetirePlan {
    /// Whether any healthy session is ended.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.max_age.is_some() || self.rebalance.is_some()
    }
}
