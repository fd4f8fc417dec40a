//! The results of checks, as they are recorded in servers.

use std::sync::Arc;

use crate::pool::{CheckOutcome, CheckState, CheckVerdict, KnownPrimary, PoolRoles, RoleJudgement, Server, Thresholds};

/// A result that was recorded in a server.
#[derive(Debug)]
pub struct RecordedOutcome {
    /// The server; not always the one that was checked.
    pub server: Arc<Server>,
    /// The result.
    pub outcome: CheckOutcome,
    /// Its state before.
    pub before: CheckState,
    /// Its new state, if that has changed.
    pub changed: Option<CheckState>,
    /// The new verdict of its checks, if it has changed.
    pub new_verdict: Option<CheckVerdict>,
}

impl RecordedOutcome {
    pub(super) fn record(server: &Arc<Server>, outcome: CheckOutcome, thresholds: Thresholds) -> Self {
        let (before, verdict_before) = (server.check_state(), server.health().verdict);
        let changed = server.record_check(&outcome, thresholds);
        let verdict = server.health().verdict;
        Self {
            server: Arc::clone(server),
            outcome,
            before,
            changed,
            new_verdict: (verdict != verdict_before).then_some(verdict),
        }
    }

    /// Whether the server was up, and is down now because of a failure. A server that has another role, or is behind, works: if
    /// that were a failure, two switchovers or one long transaction could take all servers of a pool out.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        let went_down = self.before == CheckState::Up && self.changed == Some(CheckState::Down);
        went_down && !matches!(self.outcome, CheckOutcome::Unfit(_) | CheckOutcome::Behind(_))
    }
}

/// Logs what a judgement changes about the primary of a pool, and records the results that follow from it.
pub(super) fn follow(
    judgement: RoleJudgement,
    pool: &str,
    roles: &PoolRoles,
    thresholds: Thresholds,
) -> impl Iterator<Item = RecordedOutcome> {
    if let Some(KnownPrimary { server, timeline, .. }) = &judgement.new_primary {
        tracing::info!(pool, %server, timeline, "the pool has a new primary");
    }
    if let Some(rivals) = &judgement.rivals {
        let servers = rivals.join(", ");
        let used = roles.primary_in_force();
        let used = used.as_deref().unwrap_or("none");
        tracing::warn!(pool, servers, used, "several servers call themselves primary");
    }
    let outcomes = judgement.outcomes.into_iter();
    outcomes.map(move |(server, outcome)| RecordedOutcome::record(&server, outcome, thresholds))
}
