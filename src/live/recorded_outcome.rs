//! The results of checks, as they are recorded in servers.

use std::sync::Arc;

use crate::pool::{
    CheckChange, CheckOutcome, CheckState, KnownPrimary, Numbering, PoolRoles, RoleJudgement, Server, Thresholds,
};

/// A result that was recorded in a server.
#[derive(Debug)]
pub struct RecordedOutcome {
    /// The server; not always the checked one, because a check may change the verdict on the role of another server.
    pub server: Arc<Server>,
    /// The result.
    pub outcome: CheckOutcome,
    /// What it has changed.
    pub change: CheckChange,
}

impl RecordedOutcome {
    pub(super) fn record(server: &Arc<Server>, outcome: CheckOutcome, thresholds: Thresholds) -> Self {
        let change = server.record_check(&outcome, thresholds);
        let server = Arc::clone(server);
        Self {
            server,
            outcome,
            change,
        }
    }

    /// Whether the server was up, and is down now because of a failure. With `failback = "manual"`, such a server stays
    /// out of use until an operator enables it. Another role or a lag is no failure, because the server works:
    /// otherwise two switchovers or one long transaction could take all servers of a pool out.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        let went_down = self.change.before == CheckState::Up && self.change.state == Some(CheckState::Down);
        went_down && !matches!(self.outcome, CheckOutcome::Unfit(_) | CheckOutcome::Behind(_))
    }
}

/// Logs a new primary of the pool, and new rivals for this role. Records the results of the judgement, each when the
/// iterator gets to it.
pub(super) fn apply_judgement(
    judgement: RoleJudgement,
    pool: &str,
    roles: &PoolRoles,
    thresholds: Thresholds,
) -> impl Iterator<Item = RecordedOutcome> {
    if let Some((KnownPrimary { server, timeline, .. }, numbering)) = &judgement.new_primary {
        // An epoch is stored as a timeline, but the log has a field of its own for it.
        let (timeline, epoch) = match numbering {
            Numbering::Timeline | Numbering::None => (*timeline, None),
            Numbering::Epoch { .. } => (None, *timeline),
        };
        tracing::info!(pool, %server, timeline, epoch, "the pool has a new primary");
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
