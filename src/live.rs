//! The plan in force.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::plan::Plan;
use crate::pool::health::Checked;

/// Holds the one plan that is in force; whoever needs it takes it once and works with what it took.
#[derive(Debug)]
pub struct Live {
    plan: ArcSwap<Plan>,
}

impl Live {
    /// Puts a plan in force.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            plan: ArcSwap::from_pointee(plan),
        }
    }

    /// The plan in force at this moment.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Whether every server that is checked has had its first check.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        let plan = self.plan.load();
        let unchecked = |pool: &crate::plan::PoolPlan| {
            pool.pool
                .servers()
                .iter()
                .any(|server| server.checked() == Checked::Unchecked)
        };
        !plan.pools.iter().any(|pool| unchecked(pool))
    }
}
