//! The plan in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::plan::{Plan, PoolPlan};
use crate::pool::Server;
use crate::pool::health::Checked;

/// Holds the one plan that is in force; whoever needs it takes it once and works with what it took.
#[derive(Debug)]
pub struct Live {
    plan: ArcSwap<Plan>,
    was_checked: AtomicBool,
}

impl Live {
    /// Puts a plan in force.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            plan: ArcSwap::from_pointee(plan),
            was_checked: AtomicBool::new(false),
        }
    }

    /// The plan in force at this moment.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Whether every server that is checked has had its first check, those behind names included where the names
    /// resolve at all. Once it has been so it stays so: a server that joins later is no reason to take the process out.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        let is_checked = self.was_checked.load(Relaxed) || self.plan.load().pools.iter().all(|pool| all_checked(pool));
        self.was_checked.fetch_or(is_checked, Relaxed);
        is_checked
    }
}

fn all_checked(pool: &PoolPlan) -> bool {
    let is_resolved = pool.pool.was_replaced() || !pool.has_names();
    let is_checked = |server: &Arc<Server>| server.checked() != Checked::Unchecked;
    is_resolved && pool.pool.servers().iter().all(is_checked)
}
