//! Whether a pool serves new sessions, is asleep, or is still starting.

use tokio::time::Instant;

use super::LivePool;
use crate::pool::MemberState;

impl LivePool {
    /// Whether new sessions get a server of this pool, or one is started for them. The pool does not serve while they
    /// get a server of its fallback, or, in a pool of replicas, the primary.
    #[must_use]
    pub fn serves(&self, now: Instant) -> bool {
        (self.is_usable(now) && !self.is_on_stand_in(now)) || self.is_asleep(now)
    }

    /// Whether the pool has no usable server only because no client has asked for one, or because the clones that are
    /// started for clients are at their first start. If the start of a clone has failed, the pool is not asleep until
    /// that clone is leaving. A pool for which an operator wants no clones is not asleep.
    #[must_use]
    pub fn is_asleep(&self, now: Instant) -> bool {
        self.needs_wake(now) && self.scale().can_start()
    }

    /// Whether the pool may still get its first usable server: a server has not been checked yet; or there is no server
    /// yet, because names have not been resolved, the source has not answered, or a clone is still to start.
    #[must_use]
    pub fn is_starting(&self, now: Instant) -> bool {
        let servers = self.servers();
        let is_unchecked = || servers.iter().any(|server| server.state(now) == MemberState::Unchecked);
        let is_unresolved = || self.has_names() && !self.is_resolved();
        let is_unlisted = || self.plan().discover.is_some() && self.dynamic().source().is_up.is_none();
        let is_uncloned = || self.plan().scale.is_some() && self.scale().can_start();
        is_unchecked() || servers.is_empty() && (is_unresolved() || is_unlisted() || is_uncloned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::live::Live;
    use crate::scale::{CloneState, CloneStatus, WantedClones};

    /// A pool with these lines in its configuration.
    fn pool(lines: &str) -> Arc<LivePool> {
        let text = format!("[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\n{lines}");
        let plan = crate::config::read("a.toml", &text).ok().unwrap().plan;
        Arc::clone(Live::new(plan, Vec::new()).in_force().pool("p").unwrap())
    }

    fn scaled(min: u32) -> Arc<LivePool> {
        pool(&format!(
            "[pools.p.scale]\nmin = {min}\nmax = 2\nsessions_per_server = 1\ncommand = \"/bin/false\""
        ))
    }

    fn clone_status(state: CloneState, reason: Option<&str>) -> CloneStatus {
        CloneStatus {
            name: "p-1".into(),
            state,
            is_leaving: state == CloneState::Draining,
            since: SystemTime::now(),
            address: None,
            pid: None,
            container: None,
            restarts: u32::from(reason.is_some()),
            reason: reason.map(Into::into),
        }
    }

    #[tokio::test]
    async fn a_pool_is_asleep_while_every_clone_is_leaving_or_at_its_first_start() {
        let (sleeper, never_asleep, now) = (scaled(0), scaled(1), Instant::now());
        let failed = Some("exit status 1");
        for (clones, can_start) in [
            (vec![], true),
            (vec![clone_status(CloneState::Starting, None)], true),
            (vec![clone_status(CloneState::Waiting, failed)], false),
            (vec![clone_status(CloneState::Starting, failed)], false),
            (vec![clone_status(CloneState::Stopping, None)], false), // to be started again
            (vec![clone_status(CloneState::Draining, failed)], true),
        ] {
            sleeper.scale().publish(clones.clone());
            assert_eq!(
                (sleeper.is_asleep(now), sleeper.serves(now)),
                (can_start, can_start),
                "{clones:?}"
            );
            never_asleep.scale().publish(clones.clone());
            assert_eq!(
                (never_asleep.is_starting(now), never_asleep.serves(now)),
                (can_start, false),
                "{clones:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_sleeping_pool_does_not_serve_while_the_operator_wants_no_clones() {
        let (sleeper, now) = (scaled(0), Instant::now());
        let wanted = |clones| WantedClones {
            clones,
            by: "me".into(),
            at: SystemTime::now(),
        };
        sleeper.scale().set_wanted(Some(wanted(0)));
        assert!(!sleeper.serves(now) && !sleeper.is_starting(now), "no client wakes it");
        sleeper.scale().set_wanted(Some(wanted(1)));
        assert!(sleeper.serves(now));
    }

    #[tokio::test]
    async fn a_pool_without_servers_is_starting_until_its_source_has_answered() {
        let (listed, now) = (
            pool("discover = { file = \"/run/servers.json\", allow_empty = true }"),
            Instant::now(),
        );
        assert!(listed.is_starting(now));
        listed.dynamic().record_success(SystemTime::now(), None);
        assert!(!listed.is_starting(now) && !listed.serves(now));
        assert!(pool("servers = [\"a.test:1\"]").is_starting(now));
        assert!(!pool("servers = [\"10.0.0.1:1\"]\nhealth = { check = \"off\" }").is_starting(now));
    }
}
