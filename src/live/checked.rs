//! What the results of checks mean for a pool: the state of its servers, and which of them is the primary.

use std::sync::Arc;

use tokio::time::Instant;

use super::pool::LivePool;
use super::recorded_outcome::{RecordedOutcome, apply_judgement};
use crate::plan::{Fallback, HealthPlan};
use crate::pool::{FailedCheck, Member, Server, ServerFacts};

impl LivePool {
    /// Judges the result of a check of one of the pool's servers (`Err`: not passed), and records what follows from it.
    pub fn record_check(&self, server: &Arc<Server>, result: Result<ServerFacts, FailedCheck>) -> Vec<RecordedOutcome> {
        let HealthPlan {
            required, thresholds, ..
        } = self.plan().health;
        let members = self.servers();
        let has_passed = result.is_ok();
        let mut recorded = Vec::new();
        let judgement = match result {
            Ok(facts) => self.roles().judge(server, &facts, &members, required, Instant::now()),
            Err(failed) => {
                recorded.push(RecordedOutcome::record(server, failed.outcome.clone(), thresholds));
                self.roles()
                    .note_failure(server, &failed, &members, required, thresholds.fall)
            }
        };
        let has_new_primary_or_servers = judgement.has_new_primary_or_servers;
        recorded.extend(apply_judgement(judgement, self.name(), self.roles(), thresholds));
        self.update_stand_in(has_new_primary_or_servers, &members, has_passed.then_some(server));
        recorded
    }

    /// Makes this server the primary of the pool, because an operator says that it is. `None`: nothing changes, because
    /// the pool selects no primary, or the server does not call itself primary, is down, disabled or a node of Galera,
    /// or is not in the pool.
    #[must_use]
    pub fn trust(&self, server: &str) -> Option<Vec<RecordedOutcome>> {
        let HealthPlan {
            required, thresholds, ..
        } = self.plan().health;
        let members = self.servers();
        let judgement = self.roles().trust(server, &members, required)?;
        let has_new_primary_or_servers = judgement.has_new_primary_or_servers;
        let recorded = apply_judgement(judgement, self.name(), self.roles(), thresholds).collect();
        self.update_stand_in(has_new_primary_or_servers, &members, None);
        Some(recorded)
    }

    /// In a pool that falls back to its primary, updates which server is the stand-in for replicas. If there is a new
    /// primary, or new servers, marks the primary in force, and no other server, as the stand-in. `passed`: the server
    /// whose check has just passed; if it is the primary in force, that counts as a passed check of a stand-in
    /// ([`Server::confirm_stand_in`]).
    fn update_stand_in(&self, has_new_primary_or_servers: bool, members: &[Member], passed: Option<&Arc<Server>>) {
        if self.plan().fallback != Some(Fallback::Primary) {
            return;
        }
        let primary = self.roles().primary_in_force();
        let is_primary = |server: &Server| primary.as_ref() == Some(&server.spec().label);
        if has_new_primary_or_servers {
            members
                .iter()
                .for_each(|member| member.set_stand_in(is_primary(member)));
        }
        if let Some(server) = passed.filter(|server| is_primary(server)) {
            server.confirm_stand_in();
        }
    }
}
