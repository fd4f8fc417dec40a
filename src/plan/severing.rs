//! The treatment of sessions and servers when the state of a server changes.

use std::time::Duration;

/// Which sessions are closed when the state of a server changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeveringPlan {
    /// For the sessions of a server that goes down.
    pub on_down: Sever,
    /// For the sessions of a server that goes down only because it is behind its primary.
    pub on_lag: Sever,
    /// For the sessions on a worse tier when a better one is back, and those on the fallback when the pool is back.
    pub on_recover: Sever,
    /// For the sessions of a server that leaves the pool.
    pub on_leave: Sever,
    /// The time over which the sessions are closed.
    pub close_over: Duration,
}

impl SeveringPlan {
    /// Whether any sessions are closed.
    #[must_use]
    pub fn is_on(&self) -> bool {
        [self.on_down, self.on_lag, self.on_recover, self.on_leave].contains(&Sever::Close)
    }
}

/// The treatment of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sever {
    /// They go on.
    #[default]
    Keep,
    /// They are closed, spread over [`SeveringPlan::close_over`]; or at once where an old primary may serve them.
    Close,
}

/// What happens to a server that went down, once its checks pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// It is used again.
    #[default]
    Auto,
    /// It gets no new sessions until an operator enables it.
    Manual,
}
