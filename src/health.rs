//! When which check runs, and what follows from its result: timers and tasks. The state machine that decides whether a
//! server is up is in [`crate::pool`], the kinds of checks are in [`crate::check`].
//!
//! Every pool has one task. It has the names of the pool's servers resolved, and runs one more task for each server, which
//! checks that server again and again. A reload changes what a pool's task works on, without restarting it.

mod schedule;
mod server_check;
mod context;
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
use crate::plan::{Plan, PoolPlan};
use crate::pool::ServerRegistry;
use context::CheckContext;
use pool_checks::PoolChecks;

/// How long a reload waits for the addresses of new names. Most answer sooner; the others are resolved after the reload.
const NEW_NAMES_TIMEOUT: Duration = Duration::from_secs(1);

/// Resolves the names and checks the servers of all pools of the plan in force.
pub struct HealthMonitor {
    context: Arc<CheckContext>,
    pools: HashMap<Arc<str>, PoolTask>,
}

/// The task of a pool; it ends when this is dropped, and the checks of its servers with it.
struct PoolTask {
    plan: watch::Sender<Arc<PoolPlan>>,
    _task: AbortOnDropHandle<()>,
}

impl HealthMonitor {
    /// Of no pool yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, roster: Arc<ServerRegistry>) -> Self {
        Self {
            context: Arc::new(CheckContext::new(metrics, roster)),
            pools: HashMap::new(),
        }
    }

    /// Looks up the names that are new in the next plan, so that its pools begin with servers. Waits for a second at most,
    /// and changes nothing but the next plan.
    pub async fn resolve_new_names(&self, next: &Plan, now: &Plan) {
        let deadline = Instant::now() + NEW_NAMES_TIMEOUT;
        resolve_new_names(next, now, &self.context.resolver, deadline).await;
    }

    /// How many checks, and how many lookups of names, may be under way at once; each at least one. To be called within a
    /// runtime.
    pub fn set_limits(&self, checks: usize, lookups: usize) {
        self.context.capacity.resize(Some(checks));
        self.context.resolver.resize(lookups);
    }

    /// Follows this plan from now on. In a pool that stays nothing begins anew: its names are looked up when that is due,
    /// and servers whose checks are configured as before are checked when that is due. Yields to other tasks now and then,
    /// since very many pools may change.
    pub async fn adopt(&mut self, plan: &Plan) {
        let is_removed = |name: &&Arc<str>| plan.pool(name).is_none();
        let removed: Vec<_> = self.pools.keys().filter(is_removed).map(Arc::clone).collect();
        let mut changes = 0;
        for name in removed {
            self.pools.remove(&name);
            yield_after_some(&mut changes).await;
        }
        for pool in &plan.pools {
            match self.pools.get(pool.pool.name()) {
                Some(task) if Arc::ptr_eq(&task.plan.borrow(), pool) => continue,
                Some(task) => drop(task.plan.send_replace(Arc::clone(pool))),
                None => {
                    let task = PoolTask::start(pool, &self.context);
                    self.pools.insert(Arc::clone(pool.pool.name()), task);
                }
            }
            yield_after_some(&mut changes).await;
        }
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
    fn start(pool: &Arc<PoolPlan>, context: &Arc<CheckContext>) -> Self {
        let (plan, plans) = watch::channel(Arc::clone(pool));
        let task = tokio::spawn(run_pool(plans, Arc::clone(context)));
        Self {
            plan,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// Resolves the names of a pool and has its servers checked, until the sender of plans is dropped.
async fn run_pool(mut plans: watch::Receiver<Arc<PoolPlan>>, context: Arc<CheckContext>) {
    let mut pool = Arc::clone(&plans.borrow_and_update());
    let mut names = PoolNames::default();
    let mut checks = PoolChecks::default();
    names.adopt(&pool);
    // Servers with fixed addresses do not wait for the resolver.
    checks.update(&pool, &context);
    loop {
        let has_changed = tokio::select! {
            biased; // answers of the resolver go to the newest plan
            changed = plans.changed() => {
                if changed.is_err() {
                    return;
                }
                pool = Arc::clone(&plans.borrow_and_update());
                names.adopt(&pool);
                true
            }
            has_changed = names.step(&pool, &context.resolver, &context.roster), if pool.has_names() => has_changed,
        };
        if has_changed {
            checks.update(&pool, &context);
        }
    }
}

#[cfg(test)]
mod tests;
