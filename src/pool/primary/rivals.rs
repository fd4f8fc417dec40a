//! Which servers call themselves primary at the same time.

use std::sync::Arc;

use super::{Observation, PrimaryWatch, Seen};

/// Numbers the checks at which a server calls itself primary, in the order of their results. One that lives and refuses
/// a check is still what it was.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimNumbers(u64);

impl ClaimNumbers {
    /// The numbers for [`Seen::claimed`] after this observation.
    pub(super) fn after(&mut self, before: Seen, observation: Observation) -> (u64, u64) {
        let is_claim = match observation {
            Observation::Primary { .. } => true,
            Observation::Refused { accepts_sessions } => accepts_sessions && before.claim.is_some() && !before.is_down,
            Observation::Replica { .. } | Observation::Failed { .. } => false,
        };
        if !is_claim {
            return before.claimed;
        }
        self.0 += 1;
        let first = before.claim.map_or(self.0, |_| before.claimed.0);
        (first, self.0)
    }
}

impl PrimaryWatch {
    /// The servers that call themselves primary at the same time. One that has not done so since another one did for
    /// the first time is not among them: in a switchover, it may be a replica by now.
    pub(in crate::pool) fn claimants(&self) -> impl Iterator<Item = &Arc<str>> {
        let newest = self.claims().map(|(_, seen, _)| seen.claimed);
        let newest = newest.max_by_key(|(_, latest)| *latest);
        self.claims().filter_map(move |(server, seen, _)| {
            let is_at_same_time = newest.is_some_and(|(first, _)| seen.claimed.1 >= first);
            is_at_same_time.then_some(server)
        })
    }
}
