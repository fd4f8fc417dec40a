//! Pools in the order written, to be found by name.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use super::PoolPlan;

/// Pools in the order written, each found by its name in constant time: a file may have 50,000 of them.
#[derive(Debug, Default)]
pub struct PoolPlans {
    in_order: Vec<Arc<PoolPlan>>,
    /// Places in `in_order`.
    by_name: HashMap<Arc<str>, usize>,
}

impl PoolPlans {
    /// The pool of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<PoolPlan>> {
        self.by_name.get(name).map(|index| &self.in_order[*index])
    }

    /// Puts others in place of these, of the same names.
    pub fn replace(&mut self, other: impl Fn(&Arc<PoolPlan>) -> Option<Arc<PoolPlan>>) {
        for pool in &mut self.in_order {
            if let Some(other) = other(pool) {
                debug_assert_eq!(other.pool.name(), pool.pool.name());
                *pool = other;
            }
        }
    }
}

impl FromIterator<Arc<PoolPlan>> for PoolPlans {
    fn from_iter<I: IntoIterator<Item = Arc<PoolPlan>>>(pools: I) -> Self {
        let in_order: Vec<_> = pools.into_iter().collect();
        let place = |(index, pool): (usize, &Arc<PoolPlan>)| (Arc::clone(pool.pool.name()), index);
        Self {
            by_name: in_order.iter().enumerate().map(place).collect(),
            in_order,
        }
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
