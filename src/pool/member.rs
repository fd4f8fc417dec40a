//! A server in a pool: the one it is, and what the plan gives it there.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::health::Terms;
use super::{Allotment, Server, Standing};

/// A server of a pool. The server is shared with the plan before and the plan to come, and with sessions that still go
/// by one of these; its allotment is of this plan alone, so that nobody is sent by the shares of two plans at once.
#[derive(Clone, Debug)]
pub struct Member {
    server: Arc<Server>,
    allotment: Allotment,
}

impl Member {
    /// A server with this share.
    #[must_use]
    pub fn new(server: Arc<Server>, allotment: Allotment) -> Self {
        Self { server, allotment }
    }

    /// Its share of new sessions, 0 to 256: the configured one, or what it was steered to.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.server.steered_weight().unwrap_or(self.allotment.weight)
    }

    /// Its tier, 0 the best.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.allotment.priority
    }

    /// Whether it would be used if it were well: it has a share, and nobody has taken it out of service.
    #[must_use]
    pub fn is_enlisted(&self) -> bool {
        self.weight() > 0 && !self.server.is_leaving()
    }

    /// Whether it may be picked at this moment.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        if self.is_enlisted() {
            self.server.by_health(now)
        } else {
            Standing::Out
        }
    }

    /// Whether nothing but its being out of reach speaks against it: a pool in panic uses it all the same.
    #[must_use]
    pub(super) fn is_fit(&self) -> bool {
        self.is_enlisted() && !self.server.is_unfit()
    }

    /// On what terms a session that has chosen it may have it, claiming the trial where there is one. Its standing is
    /// looked at anew: since it became a candidate another session may have claimed that trial, and then it is out.
    /// In panic that is no reason.
    pub(super) fn admit(&self, now: Instant, connect_timeout: Duration, in_panic: bool) -> Option<Terms> {
        match self.standing(now) {
            _ if in_panic && self.is_fit() => Some(Terms::Free),
            Standing::Up | Standing::Unchecked => Some(Terms::Free),
            Standing::Trial => self.server.claim_trial(now, connect_timeout).then_some(Terms::Trial),
            Standing::Out => None,
        }
    }
}

impl Deref for Member {
    type Target = Arc<Server>;

    fn deref(&self) -> &Arc<Server> {
        &self.server
    }
}
