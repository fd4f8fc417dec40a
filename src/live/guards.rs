//! The guards in force.

use std::ops::{Deref, Index};
use std::sync::Arc;

use crate::guard::{Guard, GuardId};
use crate::plan::GuardPlan;

/// The guards in force, in the order of their plan.
#[derive(Clone, Debug)]
pub struct LiveGuards(Arc<[Arc<Guard>]>);

impl LiveGuards {
    /// A guard that is configured as before stays; one with other rules goes on with the counts.
    pub(super) fn new(plans: &[Arc<GuardPlan>], before: Option<&Self>) -> Self {
        let guard = |plan: &Arc<GuardPlan>| {
            let before = before.and_then(|guards| guards.named(&plan.name));
            match before {
                Some(before) if *before.rules() == plan.rules => Arc::clone(before),
                Some(before) => Arc::new(before.successor(plan.rules.clone())),
                None => Arc::new(Guard::new(Arc::clone(&plan.name), plan.rules.clone())),
            }
        };
        Self(plans.iter().map(guard).collect())
    }

    /// Puts their bandwidth in force, also for sessions under way; those that were removed limit none.
    pub(super) fn put_in_force(&self, before: &Self) {
        self.iter().for_each(|guard| guard.apply_bandwidth());
        let removed = before.iter().filter(|guard| self.named(guard.name()).is_none());
        removed.for_each(|guard| guard.lift_bandwidth());
    }

    /// The guard of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Guard>> {
        self.iter().find(|guard| **guard.name() == *name)
    }
}

impl Index<GuardId> for LiveGuards {
    type Output = Arc<Guard>;

    fn index(&self, id: GuardId) -> &Arc<Guard> {
        &self.0[id.0]
    }
}

impl Deref for LiveGuards {
    type Target = [Arc<Guard>];

    fn deref(&self) -> &[Arc<Guard>] {
        &self.0
    }
}
