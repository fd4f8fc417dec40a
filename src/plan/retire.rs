//! Which sessions of a pool are ended although nothing is wrong with them.

use std::time::Duration;

/// Which sessions are ended although nothing is wrong with them. They are ended at a moment at which they are at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetirePlan {
    /// The age at which a session ends, 10 % more or less; `None`: sessions may be of any age.
    pub max_age: Option<Duration>,
    /// The time over which sessions in excess are ended while they are spread unevenly; `None`: they stay.
    pub rebalance: Option<Duration>,
    /// How long a session must have moved no byte before it is ended.
    pub idle_for: Duration,
}

impl RetirePlan {
    /// Whether any session is ended this way.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.max_age.is_some() || self.rebalance.is_some()
    }
}
