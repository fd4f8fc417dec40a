//! When a pool ends healthy sessions: because of their age, or to spread sessions evenly over its servers.

use std::time::Duration;

/// When a pool ends healthy sessions. A session is ended only while it is at rest. But if a session that has reached
/// its age is never at rest during a further tenth of `max_age`, it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetirePlan {
    /// The age at which a session is ended, 10 % more or less; `None`: sessions may be of any age.
    pub max_age: Option<Duration>,
    /// The time over which the surplus of a server is ended: its sessions above its share; `None`: the surplus stays.
    pub rebalance: Option<Duration>,
    /// How long a session must have moved no byte to be at rest.
    pub idle_for: Duration,
}

impl RetirePlan {
    /// Whether any healthy session is ended.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.max_age.is_some() || self.rebalance.is_some()
    }
}
