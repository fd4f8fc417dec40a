//! The pools in force, and which pool serves in place of which.

use std::ops::{Deref, Index};
use std::sync::Arc;

use tokio::time::Instant;

use super::pool::LivePool;
use crate::plan::{Fallback, PoolId, PoolPlan, PoolPlans};

/// The pools in force, in the order of their plan.
#[derive(Clone, Debug)]
pub struct LivePools {
    in_order: Arc<[Arc<LivePool>]>,
    /// For each pool, its fallback if that is a pool.
    fallback_pools: Arc<[Option<PoolId>]>,
}

impl LivePools {
    /// The pools of these plans, in their order.
    pub(super) fn new(plans: &PoolPlans, live_pool: impl FnMut(&Arc<PoolPlan>) -> Arc<LivePool>) -> Self {
        let fallback_pool = |plan: &Arc<PoolPlan>| match plan.fallback.as_ref()? {
            Fallback::Pool(name) => plans.id(name),
            Fallback::Primary => None,
        };
        Self {
            in_order: plans.iter().map(live_pool).collect(),
            fallback_pools: plans.iter().map(fallback_pool).collect(),
        }
    }

    /// The pool that serves new sessions of this one now: the pool itself or, while it has no usable server, the first
    /// in its chain of fallbacks that has a usable server. If none in the chain has one, it is the pool itself.
    #[must_use]
    pub fn serving(&self, id: PoolId, now: Instant) -> PoolId {
        let mut serving = id;
        // Bounded: fallbacks form no cycle.
        while let Some(fallback) = self.fallback_pools[serving.0] {
            if self[serving].is_usable(now) {
                return serving;
            }
            serving = fallback;
        }
        // A pool without a fallback (nearly every one) is not checked here: the pick that follows sees if it is usable.
        if serving == id || self[serving].is_usable(now) {
            serving
        } else {
            id
        }
    }

    /// The first usable pool in the chain of fallbacks of this pool, unless this pool is usable itself.
    #[must_use]
    pub fn usable_fallback(&self, id: PoolId, now: Instant) -> Option<PoolId> {
        let fallback = self.fallback_pools[id.0].filter(|_| !self[id].is_usable(now))?;
        let serving = self.serving(fallback, now);
        self[serving].is_usable(now).then_some(serving)
    }

    /// The pools that have a fallback, each with the name of the pool, or of the primary, that serves in its place now;
    /// `None`: nothing does.
    pub fn with_fallback(&self, now: Instant) -> impl Iterator<Item = (&Arc<LivePool>, Option<Arc<str>>)> {
        let pools = self.in_order.iter().enumerate();
        let with_fallback = pools.filter(|(_, pool)| pool.plan().fallback.is_some());
        with_fallback.map(move |(index, pool)| {
            let serving = &self[self.serving(PoolId(index), now)];
            (pool, pool.fallback_in_use(serving, now))
        })
    }
}

impl Index<PoolId> for LivePools {
    type Output = Arc<LivePool>;

    fn index(&self, id: PoolId) -> &Arc<LivePool> {
        &self.in_order[id.0]
    }
}

impl Deref for LivePools {
    type Target = [Arc<LivePool>];

    fn deref(&self) -> &[Arc<LivePool>] {
        &self.in_order
    }
}
