//! The guards in force.

use std::ops::{Deref, Index};
use std::sync::Arc;

use tokio::time::Instant;

use crate::guard::{Guard, GuardId};
use crate::plan::GuardPlan;

/// The guards in force, in the order of their plan; and those that are no longer configured.
#[derive(Clone, Debug)]
pub struct LiveGuards {
    in_order: Arc<[Arc<Guard>]>,
    /// Guards that are no longer configured. They keep the networks that were denied by hand, until a guard of their
    /// name is configured again.
    absent: Arc<[Arc<Guard>]>,
}

impl LiveGuards {
    /// The guards of these plans. A guard that is configured as before stays. A guard whose rules have changed is
    /// replaced by a successor, which takes over its counts and the networks that were denied by hand.
    pub(super) fn new(plans: &[Arc<GuardPlan>], before: Option<&Self>) -> Self {
        let guard = |plan: &Arc<GuardPlan>| match before.and_then(|guards| guards.known(&plan.name)) {
            Some(known) if *known.rules() == plan.rules => Arc::clone(known),
            Some(known) => Arc::new(known.successor(plan.rules.clone())),
            None => Arc::new(Guard::new(Arc::clone(&plan.name), plan.rules.clone())),
        };
        let is_absent = |guard: &&Arc<Guard>| !plans.iter().any(|plan| plan.name == *guard.name());
        let now = Instant::now();
        // A removed guard is kept even if no network is denied by hand: an operator may still deny a network until the
        // plan is in force.
        let removed = before.into_iter().flat_map(|before| before.in_order.iter());
        let removed = removed.filter(is_absent).map(|guard| Arc::new(guard.without_rules()));
        let absent = before.into_iter().flat_map(|before| before.absent(now));
        let absent = absent.filter(is_absent);
        Self {
            in_order: plans.iter().map(guard).collect(),
            absent: removed.chain(absent.cloned()).collect(),
        }
    }

    /// Puts the `bandwidth` of each guard, which all its sessions share, in force, also for sessions under way. Ends
    /// this limit for the guards in `before` that are no longer configured.
    pub(super) fn apply_bandwidth(&self, before: &Self) {
        self.iter().for_each(|guard| guard.apply_bandwidth());
        let removed = before.iter().filter(|guard| self.named(guard.name()).is_none());
        removed.for_each(|guard| guard.remove_bandwidth());
    }

    /// The guard of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Guard>> {
        self.iter().find(|guard| **guard.name() == *name)
    }

    /// The guards that are no longer configured, and still have networks that were denied by hand. Sessions do not use
    /// them.
    pub fn absent(&self, now: Instant) -> impl Iterator<Item = &Arc<Guard>> {
        self.absent.iter().filter(move |guard| guard.edit_count(now) > 0)
    }

    /// The guard of this name, also if it is no longer configured.
    fn known(&self, name: &str) -> Option<&Arc<Guard>> {
        let absent = || self.absent.iter().find(|guard| **guard.name() == *name);
        self.named(name).or_else(absent)
    }
}

impl Index<GuardId> for LiveGuards {
    type Output = Arc<Guard>;

    fn index(&self, id: GuardId) -> &Arc<Guard> {
        &self.in_order[id.0]
    }
}

impl Deref for LiveGuards {
    type Target = [Arc<Guard>];

    fn deref(&self) -> &[Arc<Guard>] {
        &self.in_order
    }
}
