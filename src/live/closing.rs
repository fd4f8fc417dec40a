//! When sessions of the servers of a pool are to be closed.

use std::time::Duration;

use tokio::time::Instant;

use super::{Cause, LivePool};
use crate::account::Ending;
use crate::plan::Sever;
use crate::pool::{AdminState, KnownPrimary, Member, Role, Server};

impl LivePool {
    /// Why sessions of one of its servers are to be closed; `None`: they go on. An operator's drain is not considered.
    #[must_use]
    pub fn cause(&self, server: &Member, now: Instant) -> Option<Cause> {
        let severing = self.plan().severing;
        let policy = if server.is_down_for_lag() {
            severing.on_lag
        } else {
            severing.on_down
        };
        // `is_enabled` is asked first because `overrides` takes a lock.
        let awaits_failback = || !server.is_enabled() && server.overrides().admin_state == AdminState::AwaitingFailback;
        let is_out_of_use = || {
            (server.is_found_down() || awaits_failback()) && !self.uses_in_panic(server, now) && !server.is_stand_in()
        };
        // A disabled server is not checked, so it may be an old primary without being down.
        let is_disabled_and_old = || server.is_disabled() && self.has_other_primary(server);
        if policy == Sever::Close && (is_out_of_use() || is_disabled_and_old()) {
            return Some(self.cause_down(server, self.has_other_primary(server)));
        }
        let is_worse = || self.best_tier(now).is_some_and(|best| server.priority() > best);
        let closes = severing.on_recover == Sever::Close && is_worse();
        closes.then_some(Cause::paced(Ending::FailedBack, severing.close_over))
    }

    /// The cause for a server that is down, awaits failback, is disabled, or has left the pool. `is_old`: another
    /// server is the primary. Sessions of an old primary are closed at once, because what they write may be lost. With
    /// `role = "primary"`, a server that is not old has some of its sessions closed at once (see
    /// [`Cause::at_once_since`]).
    fn cause_down(&self, server: &Server, is_old: bool) -> Cause {
        Cause {
            ending: Ending::ServerDown,
            over: if is_old {
                Duration::ZERO
            } else {
                self.plan().severing.close_over
            },
            at_once_since: (self.plan().health.required.role == Some(Role::Primary)).then(|| server.seen_serving_at()),
        }
    }

    /// Whether only the primary may serve sessions of the pool, and the primary is another server than this one.
    fn has_other_primary(&self, server: &Server) -> bool {
        let in_force = || self.roles().primary_in_force();
        self.requires_one_primary() && in_force().is_some_and(|primary| primary != server.spec().label)
    }

    /// Why sessions of a server that was the primary (`former`) when it left the pool are closed; `None`: they go on.
    /// With `on_down = "close"` they are closed if another server with the same system identifier has been promoted
    /// since, on a higher timeline, and only the primary may serve sessions of the pool.
    pub(super) fn supersession(&self, former: &KnownPrimary, server: &Server) -> Option<Cause> {
        let known = self.roles().known_primary()?;
        let is_promoted = known.system_identifier.is_some()
            && known.system_identifier == former.system_identifier
            && former.timeline.is_some()
            && known.timeline > former.timeline;
        let is_old = is_promoted && self.requires_one_primary() && self.plan().severing.on_down == Sever::Close;
        is_old.then(|| self.cause_down(server, true))
    }

    /// Why sessions of servers that have left the pool are closed merely because of that; `None`: they go on.
    pub(super) fn cause_on_leave(&self) -> Option<Cause> {
        let severing = self.plan().severing;
        (severing.on_leave == Sever::Close).then_some(Cause::paced(Ending::ServerDrained, severing.close_over))
    }

    /// Whether only one server of the pool, the primary, may serve its sessions.
    pub(super) fn requires_one_primary(&self) -> bool {
        let required = self.plan().health.required;
        required.role == Some(Role::Primary) && required.uses_one_primary()
    }
}
