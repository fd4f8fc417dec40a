//! Pools in the order of the configuration, then those of announced routes, found by name or by index.

use std::collections::HashMap;
use std::ops::{Deref, Index};
use std::sync::Arc;

use super::PoolPlan;

/// The index of a pool among those of one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolId(pub usize);

/// Pools in the order of the configuration, then those of announced routes. Each is found by its name in constant time,
/// even among 50,000.
#[derive(Clone, Debug, Default)]
pub struct PoolPlans {
    in_order: Vec<Arc<PoolPlan>>,
    by_name: HashMap<Arc<str>, PoolId>,
}

impl PoolPlans {
    /// The pool of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<PoolPlan>> {
        self.id(name).map(|id| &self[id])
    }

    /// The index of the pool of this name.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<PoolId> {
        self.by_name.get(name).copied()
    }
}

impl FromIterator<Arc<PoolPlan>> for PoolPlans {
    fn from_iter<I: IntoIterator<Item = Arc<PoolPlan>>>(pools: I) -> Self {
        let in_order: Vec<_> = pools.into_iter().collect();
        let entry = |(index, pool): (usize, &Arc<PoolPlan>)| (Arc::clone(&pool.name), PoolId(index));
        Self {
            by_name: in_order.iter().enumerate().map(entry).collect(),
            in_order,
        }
    }
}

impl Index<PoolId> for PoolPlans {
    type Output = Arc<PoolPlan>;

    fn index(&self, id: PoolId) -> &Arc<PoolPlan> {
        &self.in_order[id.0]
    }
}

impl Deref for PoolPlans {
    type Target = [Arc<PoolPlan>];

    fn deref(&self) -> &[Arc<PoolPlan>] {
        &self.in_order
    }
}

impl<'a> IntoIterator for &'a PoolPlans {
    type Item = &'a Arc<PoolPlan>;
    type IntoIter = std::slice::Iter<'a, Arc<PoolPlan>>;

    fn into_iter(self) -> Self::IntoIter {
        self.in_order.iter()
    }
}
