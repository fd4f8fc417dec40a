//! A server as a member of a pool: the shared server, and its configuration in one plan.

use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use tokio::time::Instant;

use super::health::Availability;
use super::{AdminState, MemberConfig, Overrides, Server};

/// A member of a pool. The server is shared with earlier and later plans and with their sessions. Its configuration
/// belongs to one plan, so that a pick never mixes the configurations of two plans.
#[derive(Clone, Debug)]
pub struct Member {
    server: Arc<Server>,
    member_config: MemberConfig,
}

impl Member {
    /// This server with this configuration.
    #[must_use]
    pub fn new(server: Arc<Server>, member_config: MemberConfig) -> Self {
        Self { server, member_config }
    }

    /// Its share of new sessions, 0 to 256: what an operator has set, else what its agent has, else what is configured.
    #[must_use]
    pub fn weight(&self) -> u16 {
        let configured = self.member_config.weight;
        let by_agent = || self.server.weight_by_agent(configured).unwrap_or(configured);
        self.server.weight_override().unwrap_or_else(by_agent)
    }

    /// Its overrides as API and commands show them. An override by an operator takes precedence over those by its agent
    /// and by the source that lists it.
    #[must_use]
    pub fn shown_overrides(&self) -> Overrides {
        let mut shown = self.server.shown_overrides(self.member_config.weight);
        if self.member_config.is_draining && shown.admin_state == AdminState::Enabled {
            shown.admin_state = AdminState::Draining;
        }
        shown
    }

    /// Its tier; 0 is the best.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.member_config.priority
    }

    /// The most sessions that it may have at once; `None`: any number.
    #[must_use]
    pub fn sessions_max(&self) -> Option<NonZeroU32> {
        self.member_config.sessions_max
    }

    /// Whether it gets sessions while it is healthy: its weight is not 0, and it is not draining, disabled or
    /// awaiting failback.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        self.weight() > 0 && self.server.is_enabled() && !self.member_config.is_draining
    }

    /// Whether it may be picked now.
    pub(super) fn availability(&self, now: Instant) -> Availability {
        if self.is_in_service() {
            self.server.availability_by_health(now)
        } else {
            Availability::Unavailable
        }
    }

    /// Whether it may be picked while no other server is left: it is in service, it is the primary of a pool of
    /// replicas that falls back to its primary, and its latest check does not exclude new sessions.
    #[must_use]
    pub fn may_stand_in(&self) -> bool {
        self.is_in_service() && self.server.may_stand_in()
    }

    /// Whether it may be picked while the pool is in panic: it is in service, it has the required role, if any, it is
    /// not down because it is behind its primary, and its latest check does not exclude new sessions.
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
