//! The running checks of one pool.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::context::CheckContext;
use super::server_check::{CheckPlan, ServerCheck};
use crate::live::LivePool;
use crate::pool::ServerId;

/// The running checks of one pool: a task for each server. A task that is dropped ends, and leaves nothing behind.
#[derive(Default)]
pub(super) struct PoolChecks {
    pub(super) running: HashMap<ServerId, AbortOnDropHandle<()>>,
    /// The plan of the running checks, and the permits for those under way at once.
    current: Option<(CheckPlan, Arc<Semaphore>)>,
}

impl PoolChecks {
    /// Begins the checks of servers that are new in the pool, and ends those of servers that have left it. If
    /// their configuration has changed, all checks are restarted. To be called within a runtime.
    pub(super) fn update(&mut self, pool: &LivePool, context: &Arc<CheckContext>) {
        let plan = CheckPlan::of(pool.plan());
        let capacity = self.follow(&plan);
        let servers = pool.servers();
        let wanted: HashSet<ServerId> = servers.iter().map(|server| server.id()).collect();
        self.running.retain(|id, _| wanted.contains(id));
        let check = pool.plan().health.check.as_ref();
        let reads_certificate = check.is_some_and(|check| check.reads_certificate());
        for server in servers.iter() {
            let series = context.metrics.server(pool.name(), server);
            if !reads_certificate {
                series.clear_certificate_expiry();
            }
            series.publish_may_refuse_checks(pool.plan().health.service().is_some());
            let is_running = self.running.contains_key(&server.id());
            if let (Some(check), false) = (check, is_running) {
                let check = ServerCheck::new(Arc::clone(check), plan.clone(), Arc::clone(server), series);
                let name = Arc::clone(pool.name());
                let task = Arc::clone(context).check_repeatedly(name, check, Arc::clone(&capacity));
                self.running
                    .insert(server.id(), AbortOnDropHandle::new(tokio::spawn(task)));
            }
        }
    }

    /// Ends all checks unless they are of this plan. Returns the permits for its checks.
    fn follow(&mut self, plan: &CheckPlan) -> Arc<Semaphore> {
        if let Some((current, capacity)) = &self.current
            && current == plan
        {
            return Arc::clone(capacity);
        }
        self.running.clear();
        let capacity = Arc::new(Semaphore::new(plan.health.concurrency));
        self.current = Some((plan.clone(), Arc::clone(&capacity)));
        capacity
    }
}
