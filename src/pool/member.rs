//! A server as a member of a pool: the shared server, and its weight and priority in one plan.

use std::ops::Deref;
use std::sync::Arc;

use tokio::time::Instant;

use super::health::Availability;
use super::{MemberConfig, Server};

/// A member of a pool. The server is shared with earlier and later plans and with their sessions. Weight and priority
/// belong to one plan, so that a pick never mixes those of two plans.
#[derive(Clone, Debug)]
pub struct Member {
    server: Arc<Server>,
    member_config: MemberConfig,
}

impl Member {
    /// This server with this weight and priority.
    #[must_use]
    pub fn new(server: Arc<Server>, member_config: MemberConfig) -> Self {
        Self { server, member_config }
    }

    /// Its share of new sessions, 0 to 256: what an operator has set, else what is configured.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.server.weight_override().unwrap_or(self.member_config.weight)
    }

    /// Its tier; 0 is the best.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.member_config.priority
    }

    /// Whether it gets sessions while it is healthy: its weight is not 0, and it is neither draining nor disabled.
    #[must_use]
    pub(super) fn is_in_service(&self) -> bool {
        self.weight() > 0 && self.server.is_enabled()
    }

    /// Whether it may be picked now.
    pub(super) fn availability(&self, now: Instant) -> Availability {
        if self.is_in_service() {
            self.server.availability_by_health(now)
        } else {
            Availability::Unavailable
        }
    }

    /// Whether it may be picked while the pool is in panic: it is in service, its role is not wrong, and it does not refuse
    /// new sessions.
    pub(super) fn is_usable_in_panic(&self) -> bool {
        self.is_in_service() && !self.server.is_unfit() && !self.server.is_suspended()
    }
}

impl Deref for Member {
    type Target = Arc<Server>;

    fn deref(&self) -> &Arc<Server> {
        &self.server
    }
}
