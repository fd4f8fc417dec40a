//! Divides the limit of open files between sessions, checks, the admin port and other purposes.

use std::cell::Cell;

use super::Failure;
use crate::descriptors::{DescriptorDemand, DescriptorShares, FixedShares, open_now};
use crate::plan::Plan;

/// File descriptors of a worker's runtime: two for its epoll, its eventfd, its end of the signal pipe.
const RUNTIME_DESCRIPTORS: usize = 4;

/// File descriptors that this process holds for a clone. For a clone that is a process: the socket to its keeper, and
/// the lock of its port. For a container: its log, and the request that waits for its end.
const CLONE_DESCRIPTORS: usize = 2;

/// The file descriptors of the process.
pub(super) struct DescriptorBudget {
    limit: usize,
    /// Descriptors that are open without any session, except for the listening sockets.
    open: usize,
    workers: usize,
    /// Shares from the first division. Later divisions keep them.
    fixed: Cell<Option<FixedShares>>,
    /// The number of sessions that was logged last.
    logged: Cell<usize>,
}

impl DescriptorBudget {
    /// `limit`: the limit of open files. `addresses`: the number of addresses that are listened on. To be called before
    /// the workers start, but after everything else is open that stays open without sessions. Of the listening sockets,
    /// one for each address is open by then; [`Self::divide`] counts those of all workers.
    pub(super) fn new(limit: usize, workers: usize, addresses: usize) -> Result<Self, Failure> {
        let open = open_now().map_err(super::failure::system("cannot count open files"))?;
        Ok(Self {
            limit,
            open: open.saturating_sub(addresses) + workers * RUNTIME_DESCRIPTORS,
            workers,
            fixed: Cell::new(None),
            logged: Cell::new(0),
        })
    }

    /// Divides the descriptors that are left when every worker listens on this number of addresses. Workers and the
    /// admin server get their shares once, from the first division. Later divisions deduct these shares, so that a
    /// reload does not give descriptors away twice. Logs a warning if `max_connections` is not possible.
    pub(super) fn divide(&self, plan: &Plan, addresses: usize) -> DescriptorShares {
        let demand = DescriptorDemand {
            sessions: plan.runtime.max_connections,
            checks: plan.pools.iter().map(|pool| pool.health.concurrency).max().unwrap_or(1),
            names: plan.pools.iter().map(|pool| pool.names().count()).sum(),
            has_cancels: plan.listeners.iter().any(|listener| listener.protocol.is_postgres()),
            fixed: self.fixed.get(),
        };
        let scaled = plan.pools.iter().filter_map(|pool| pool.scale.as_ref());
        let clones: usize = scaled.map(|scale| scale.rules.max as usize).sum();
        let held = self.open + addresses * self.workers + clones * CLONE_DESCRIPTORS;
        let shares = DescriptorShares::new(self.limit, held, demand);
        self.fixed.set(Some(FixedShares {
            pipes: shares.pipes,
            admin: shares.admin,
        }));
        if let Some(wanted) = demand.sessions.filter(|wanted| *wanted > shares.sessions) {
            tracing::warn!(
                wanted,
                possible = shares.sessions,
                open_files = self.limit,
                "max_connections is more than the limit of open files allows: raise the limit (`ulimit -n`)"
            );
        }
        if self.logged.replace(shares.sessions) != shares.sessions {
            tracing::info!(
                sessions = shares.sessions,
                open_files = self.limit,
                workers = self.workers,
                "room"
            );
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_of_all_workers_count_at_every_reload() {
        const CONFIG: &str =
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]";
        let plan = crate::config::read("test.toml", CONFIG).ok().unwrap().plan;
        let budget = DescriptorBudget {
            limit: 1000,
            open: 20,
            workers: 4,
            fixed: Cell::new(None),
            logged: Cell::new(0),
        };
        let first = budget.divide(&plan, 1);
        for addresses in [1, 11, 11, 0, 1] {
            let shares = budget.divide(&plan, addresses);
            let demand = DescriptorDemand {
                checks: shares.checks,
                fixed: budget.fixed.get(),
                ..DescriptorDemand::default()
            };
            assert_eq!(shares, DescriptorShares::new(1000, 20 + 4 * addresses, demand));
            assert_eq!((shares.pipes, shares.admin), (first.pipes, first.admin));
        }
    }

    #[test]
    fn all_clones_that_a_plan_allows_have_their_descriptors() {
        let config = |scale: &str| {
            let text = format!(
                "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]\n{scale}"
            );
            crate::config::read("test.toml", &text).ok().unwrap().plan
        };
        let descriptors_of_sessions_and_checks = |scale: &str| {
            let budget = DescriptorBudget {
                limit: 1000,
                open: 20,
                workers: 1,
                fixed: Cell::new(Some(FixedShares { pipes: 8, admin: 8 })),
                logged: Cell::new(0),
            };
            let plan = config(scale);
            let shares = budget.divide(&plan, 1);
            2 * shares.sessions + shares.checks
        };
        let scale = "[pools.p.scale]\nmax = 20\nsessions_per_server = 9\ncommand = \"/bin/false\"\n";
        let [without, with] = ["", scale].map(descriptors_of_sessions_and_checks);
        assert_eq!(without - with, 20 * CLONE_DESCRIPTORS);
    }
}
