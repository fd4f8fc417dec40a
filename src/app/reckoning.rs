//! What the limit of open files is divided into.

use std::cell::Cell;

use super::Failure;
use crate::descriptors::{DescriptorDemand, DescriptorShares, open_now};
use crate::plan::Plan;

/// Descriptors of a worker's runtime: its epoll, what wakes it, its share of the signals.
const RUNTIME_DESCRIPTORS: usize = 4;

/// What the descriptors are kept for.
pub(super) struct Reckoning {
    limit: usize,
    /// Open without a session, the listening sockets apart.
    open: usize,
    workers: usize,
    /// The places of sessions, as last told.
    told: Cell<usize>,
}

impl Reckoning {
    /// To be called when all is open that is open without a session; of listening sockets one for each of `addresses`,
    /// for the other workers' come later. `limit`: of open files.
    pub(super) fn new(limit: usize, workers: usize, addresses: usize) -> Result<Self, Failure> {
        let open = open_now().map_err(super::failure::system("cannot count open files"))?;
        Ok(Self {
            limit,
            open: open.saturating_sub(addresses) + workers * RUNTIME_DESCRIPTORS,
            workers,
            told: Cell::new(0),
        })
    }

    /// With so many addresses listened on, each by a socket of every worker. A wish that cannot be met is said.
    pub(super) fn budget(&self, plan: &Plan, addresses: usize) -> DescriptorShares {
        let wanted = DescriptorDemand {
            sessions: plan.runtime.max_connections,
            checks: plan.pools.iter().map(|pool| pool.health.concurrency).max().unwrap_or(1),
            names: plan.pools.iter().map(|pool| pool.names().count()).sum(),
        };
        let budget = DescriptorShares::new(self.limit, self.open + addresses * self.workers, wanted);
        if let Some(wanted) = wanted.sessions.filter(|wanted| *wanted > budget.sessions) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_of_all_workers_count_however_often_it_is_reckoned() {
        const CONFIG: &str =
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]";
        let plan = crate::config::read("test.toml", CONFIG).ok().unwrap().plan;
        let reckoning = Reckoning {
            limit: 1000,
            open: 20,
            workers: 4,
            told: Cell::new(0),
        };
        for addresses in [1, 11, 11, 0, 1] {
            let budget = reckoning.budget(&plan, addresses);
            let wanted = DescriptorDemand {
                checks: budget.checks,
                ..DescriptorDemand::default()
            };
            assert_eq!(budget, DescriptorShares::new(1000, 20 + 4 * addresses, wanted));
        }
    }
}
