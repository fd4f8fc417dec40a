//! The checks of the servers of one pool.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::server_check::ServerCheck;
use super::shared_checks::{CheckUse, SharedChecks};
use super::shared_probe::CheckSetup;
use crate::dial::ConnectOptions;
use crate::live::LivePool;
use crate::plan::HealthPlan;
use crate::pool::ServerId;
use crate::tls::PoolTlsPlan;

/// The checks of the servers of one pool.
#[derive(Default)]
pub(super) struct PoolChecks {
    /// The running check of each server. Dropping a use ends the check, unless the check has another use.
    pub(super) uses: HashMap<ServerId, CheckUse>,
    current: Option<CurrentChecks>,
}

/// The configuration of the running checks.
struct CurrentChecks {
    health: HealthPlan,
    connect: ConnectOptions,
    tls: Option<PoolTlsPlan>,
    /// The permits that the pool's checks hold while they run.
    capacity: Arc<Semaphore>,
}

impl PoolChecks {
    /// Begins the checks of servers that are new in the pool, and ends those of servers that have left it. If the
    /// configuration of the checks has changed, all servers are checked anew. To be called within a runtime.
    pub(super) fn update(&mut self, pool: &LivePool, checks: &Arc<SharedChecks>) {
        // The uses that are left in `before` are dropped at the end, after the new ones have begun. So a check that an
        // old and a new use share goes on.
        let mut before = std::mem::take(&mut self.uses);
        let (capacity, is_unchanged) = self.take_over_plan(pool);
        let check = pool.plan().health.check.as_ref();
        let reads_certificate = check.is_some_and(|check| check.reads_certificate());
        for server in pool.servers().iter() {
            let series = checks.context.metrics.server(pool.name(), server);
            if !reads_certificate {
                series.clear_certificate();
            }
            // Only a check that is made for one service, such as PostgreSQL, logs in, and the server may refuse that.
            let may_log_in = pool.plan().health.service().is_some();
            series.publish_may_refuse_checks(may_log_in);
            let kept = match is_unchanged {
                true => before.remove(&server.id()),
                false => None,
            };
            let check_use = kept.or_else(|| {
                let tls = checks.context.live.in_force().tls.pools.get(pool.name()).cloned();
                let setup = CheckSetup::for_server(pool.plan(), server.spec(), tls)?;
                let server_check = ServerCheck::new(pool, Arc::clone(server), series, Arc::clone(&capacity));
                Some(checks.begin(setup, server_check))
            });
            self.uses.extend(check_use.map(|check_use| (server.id(), check_use)));
        }
    }

    /// Takes over the plan of the pool. Returns the permits for its checks, and whether the checks are configured as
    /// before.
    fn take_over_plan(&mut self, pool: &LivePool) -> (Arc<Semaphore>, bool) {
        let (plan, health) = (pool.plan(), &pool.plan().health);
        let is_unchanged = |current: &&CurrentChecks| {
            current.health == *health && current.connect == plan.dial.connect && current.tls == plan.tls
        };
        if let Some(current) = self.current.as_ref().filter(is_unchanged) {
            return (Arc::clone(&current.capacity), true);
        }
        let capacity = Arc::new(Semaphore::new(health.concurrency));
        self.current = Some(CurrentChecks {
            health: health.clone(),
            connect: plan.dial.connect.clone(),
            tls: plan.tls.clone(),
            capacity: Arc::clone(&capacity),
        });
        (capacity, false)
    }
}
