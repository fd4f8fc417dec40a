//! A server in a pool: the server itself, and what the plan configures for it there.

use std::ops::Deref;
use std::sync::Arc;

use tokio::time::Instant;

use super::candidates::Availability;
use super::{MemberConfig, Server};

/// A server of a pool. The server is shared with the previous and the next plan, and with sessions that still use one of
/// them; weight and priority belong to this plan alone, so that no session is placed by those of two plans at once.
#[derive(Clone, Debug)]
pub struct Member {
    server: Arc<Server>,
    member_config: MemberConfig,
}

impl Member {
    /// A server with this weight and priority.
    #[must_use]
    pub fn new(server: Arc<Server>, member_config: MemberConfig) -> Self {
        Self { server, member_config }
    }

    /// Its share of new sessions, 0 to 256: the configured one, or the one an operator has set.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.server.steered_weight().unwrap_or(self.member_config.weight)
    }

    /// Its tier, 0 the best.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.member_config.priority
    }

    /// Whether it is meant to get sessions while it is healthy: its weight is not 0, and it is neither drained nor disabled.
    #[must_use]
    pub(super) fn is_in_service(&self) -> bool {
        self.weight() > 0 && !self.server.is_leaving()
    }

    /// Whether it may be picked at this instant.
    pub(super) fn availability(&self, now: Instant) -> Availability {
        if self.is_in_service() {
            self.server.availability_by_health(now)
        } else {
            Availability::Unavailable
        }
    }

    /// Whether it may be picked while the pool is in panic: nothing speaks against it but that it cannot be reached.
    pub(super) fn is_usable_in_panic(&self) -> bool {
        self.is_in_service() && !self.server.is_unfit()
    }
}

impl Deref for Member {
    type Target = Arc<Server>;

    fn deref(&self) -> &Arc<Server> {
        &self.server
    }
}
