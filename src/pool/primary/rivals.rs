//! Which servers call themselves primary at the same time.

use std::sync::Arc;

use super::PrimaryWatch;

impl PrimaryWatch {
    /// The servers that call themselves primary at the same time: the claimants. Of the servers that call themselves
    /// primary and are not down, let `x` be the last that did so at a check. It is a claimant, and so is each of the
    /// others that has done so at a check since `x` began to.
    ///
    /// For example, in a switchover `a` is the primary at one check, and `b` at the next one. Until `a` is checked
    /// again, only `b` is a claimant: `a` may be a replica by now.
    pub(in crate::pool) fn claimants(&self) -> impl Iterator<Item = &Arc<str>> {
        let periods = self.claims().map(|(_, seen, _)| seen.claimed);
        let newest = periods.max_by_key(|claimed| claimed.latest);
        self.claims().filter_map(move |(server, seen, _)| {
            let is_at_same_time = newest.is_some_and(|newest| seen.claimed.latest >= newest.first);
            is_at_same_time.then_some(server)
        })
    }
}
