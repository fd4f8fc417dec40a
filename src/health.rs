//! The timers and tasks of checks: when each check runs, and what follows from its result. [`crate::pool`] has the
//! state machine that decides whether a server is up, [`crate::check`] has the kinds of checks.
//!
//! Every pool has one task, which resolves the names of the pool's servers. If the pool has a check, each of its
//! servers also has a task, in which it is checked again and again. Pools that check the same address in the same way
//! share such a task: each check is made once, and each pool judges the result. A reload gives a pool's task the new
//! pool, without restarting the task.

mod schedule;
mod server_check;
mod shared_probe;
mod context;
mod shared_checks;
mod pool_checks;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::account::Metrics;
use crate::discover::{PoolNames, resolve_new_names};
use crate::live::{InForce, Live, LivePool, NameAddresses};
use crate::plan::Plan;
use context::CheckContext;
pub use context::SingleChecks;
use pool_checks::PoolChecks;
pub use server_check::report_changes;
use shared_checks::SharedChecks;

/// How long a reload waits for the addresses of new names. Names that take longer are resolved after the reload.
const NEW_NAMES_TIMEOUT: Duration = Duration::from_secs(1);

/// Resolves the names and checks the servers of all pools in force.
pub struct HealthMonitor {
    checks: Arc<SharedChecks>,
}

/// The tasks of all pools, by pool name.
type PoolTasks = HashMap<Arc<str>, PoolTask>;

/// The task of a pool. Dropping this value ends the task and the pool's checks.
struct PoolTask {
    pool: watch::Sender<Arc<LivePool>>,
    _task: AbortOnDropHandle<()>,
}

impl HealthMonitor {
    /// A monitor that monitors nothing yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, live: Arc<Live>) -> Self {
        Self {
            checks: SharedChecks::new(CheckContext::new(metrics, live)),
        }
    }

    /// Checks of single servers, within the limits of this monitor.
    #[must_use]
    pub fn single_checks(&self) -> SingleChecks {
        SingleChecks(Arc::clone(&self.checks.context))
    }

    /// Looks up the names that are new in the next plan, so that its pools begin with servers. Returns the addresses
    /// that are found within a second, by pool.
    pub async fn resolve_new_names(&self, next: &Plan) -> HashMap<Arc<str>, NameAddresses> {
        let context = &self.checks.context;
        let deadline = Instant::now() + NEW_NAMES_TIMEOUT;
        resolve_new_names(next, &context.live.plan(), &context.resolver, deadline).await
    }

    /// Sets how many checks, and how many lookups of names, may be under way at once; both at least one. To be called
    /// within a runtime.
    pub fn set_limits(&self, checks: usize, lookups: usize) {
        self.checks.context.capacity.resize(Some(checks));
        self.checks.context.resolver.resize(lookups);
    }

    /// Monitors the pools that are in force, for as long as the returned future is polled.
    pub fn run(&self) -> impl Future<Output = ()> + use<> {
        let checks = Arc::clone(&self.checks);
        let mut receiver = checks.context.live.subscribe();
        async move {
            let mut tasks = PoolTasks::new();
            loop {
                let in_force = Arc::clone(&receiver.borrow_and_update());
                adopt(&mut tasks, &in_force, &checks).await;
                drop(in_force); // the wait for a change must not keep old pools in memory
                if receiver.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Monitors the pools in force from now on. A pool that was monitored before keeps its timers: those of its names, and
/// those of the checks whose configuration has not changed. Yields to other tasks now and then: very many pools may
/// change.
async fn adopt(tasks: &mut PoolTasks, in_force: &InForce, checks: &Arc<SharedChecks>) {
    let is_removed = |name: &&Arc<str>| in_force.pool(name).is_none();
    let removed: Vec<_> = tasks.keys().filter(is_removed).map(Arc::clone).collect();
    let mut changes = 0;
    for name in removed {
        tasks.remove(&name);
        yield_after_some(&mut changes).await;
    }
    for pool in in_force.pools.iter() {
        match tasks.get(pool.name()) {
            Some(task) if Arc::ptr_eq(&task.pool.borrow(), pool) => continue,
            Some(task) => drop(task.pool.send_replace(Arc::clone(pool))),
            None => drop(tasks.insert(Arc::clone(pool.name()), PoolTask::start(pool, checks))),
        }
        yield_after_some(&mut changes).await;
    }
}

/// Lets other tasks run after every few changes.
async fn yield_after_some(changes: &mut usize) {
    const CHANGES_AT_ONCE: usize = 64;
    *changes += 1;
    if changes.is_multiple_of(CHANGES_AT_ONCE) {
        yield_now().await;
    }
}

impl PoolTask {
    fn start(pool: &Arc<LivePool>, checks: &Arc<SharedChecks>) -> Self {
        let (sender, pools) = watch::channel(Arc::clone(pool));
        let task = tokio::spawn(run_pool(pools, Arc::clone(checks)));
        Self {
            pool: sender,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// Resolves the names of the newest pool in `pools`, and has its servers checked. Ends when the sender of `pools` is
/// dropped.
async fn run_pool(mut pools: watch::Receiver<Arc<LivePool>>, shared: Arc<SharedChecks>) {
    let mut pool = Arc::clone(&pools.borrow_and_update());
    let mut entries = pool.subscribe_entries();
    let mut names = PoolNames::default();
    let mut checks = PoolChecks::default();
    names.adopt(&pool);
    // Servers with fixed addresses do not wait for the resolver.
    checks.update(&pool, &shared);
    loop {
        let has_changed = tokio::select! {
            biased; // lookups follow the newest plan
            changed = pools.changed() => {
                if changed.is_err() {
                    return;
                }
                pool = Arc::clone(&pools.borrow_and_update());
                entries = pool.subscribe_entries();
                names.adopt(&pool);
                true
            }
            Ok(()) = entries.changed() => {
                names.adopt(&pool);
                true
            }
            has_changed = names.step(&pool, &shared.context.resolver, &shared.context.live), if pool.has_names() => has_changed,
        };
        if has_changed {
            checks.update(&pool, &shared);
        }
    }
}

#[cfg(test)]
mod tests;
