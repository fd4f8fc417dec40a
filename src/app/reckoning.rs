//! What the limit of open files is divided into.

use std::cell::Cell;

use super::Failure;
use crate::descriptors::{Budget, open_now};
use crate::plan::Plan;

/// Descriptors of a worker's runtime: its epoll, what wakes it, its share of the signals.
const RUNTIME_DESCRIPTORS: usize = 4;

/// What the descriptors are kept for.
pub(super) struct Reckoning {
    limit: usize,
    /// Open when it started, without a session.
    open: usize,
    workers: usize,
    /// The places of sessions, as last told.
    told: Cell<usize>,
}

impl Reckoning {
    /// To be called when all is open that is open without a session. `limit`: of open files.
    pub(super) fn new(limit: usize, workers: usize) -> Result<Self, Failure> {
        let open =
            open_now().map_err(super::failure::system("cannot count open files"))? + workers * RUNTIME_DESCRIPTORS;
        Ok(Self {
            limit,
            open,
            workers,
            told: Cell::new(0),
        })
    }

    /// With so many more listening sockets than at the start. A wish that cannot be met is said.
    pub(super) fn budget(&self, plan: &Plan, more_sockets: usize) -> Budget {
        let wanted = plan.runtime.max_connections;
        let checks = plan.pools.iter().map(|pool| pool.health.concurrency).max().unwrap_or(1);
        let budget = Budget::new(self.limit, self.open + more_sockets, wanted, checks);
        if let Some(wanted) = wanted.filter(|wanted| *wanted > budget.sessions) {
            tracing::warn!(
                wanted,
                possible = budget.sessions,
                open_files = self.limit,
                "max_connections is more than the limit of open files allows: raise it (`ulimit -n`)"
            );
        }
        if self.told.replace(budget.sessions) != budget.sessions {
            tracing::info!(
                sessions = budget.sessions,
                open_files = self.limit,
                workers = self.workers,
                "room"
            );
        }
        budget
    }
}
