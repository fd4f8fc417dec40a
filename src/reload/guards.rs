//! The report of a reload about guards: how many networks they have, so that a file that was cut short is noticed; and
//! which edits by an operator (`acequia guard deny`) are no longer in force, or are in force again.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::guard::{Guard, NetworkSet};
use crate::live::InForce;
use crate::plan::{GuardPlan, Plan};
use crate::text::counted;

/// How many networks a guard has. It is displayed as `guard office: 2 networks allowed, 60000 denied`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardNetworks {
    /// Its name.
    pub guard: String,
    /// Networks of `allow` and `allow_file`; `None`: the guard has neither.
    pub allowed: Option<usize>,
    /// Networks of `deny` and `deny_file`.
    pub denied: usize,
}

impl GuardNetworks {
    /// Counts the networks of a guard.
    #[must_use]
    pub fn new(guard: &GuardPlan) -> Self {
        Self {
            guard: guard.name.to_string(),
            allowed: guard.rules.allow.as_ref().map(NetworkSet::networks),
            denied: guard.rules.deny.networks(),
        }
    }

    /// Whether the guard allows or denies networks.
    #[must_use]
    pub fn has_lists(&self) -> bool {
        self.allowed.is_some() || self.denied > 0
    }

    /// Counts the networks of each new guard that has some, and of each guard whose networks have changed.
    pub(super) fn changed(old: &Plan, new: &Plan) -> Vec<Self> {
        let before = |guard: &GuardPlan| old.guards.iter().find(|old| old.name == guard.name);
        let is_shown = |guard: &&Arc<GuardPlan>| match before(guard) {
            Some(old) => !old.has_same_networks(guard),
            None => Self::new(guard).has_lists(),
        };
        let shown = new.guards.iter().filter(is_shown);
        shown.map(|guard| Self::new(guard)).collect()
    }
}

impl fmt::Display for GuardNetworks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guard {}: ", self.guard)?;
        match self.allowed {
            Some(allowed) => write!(f, "{} allowed, {} denied", counted(allowed, "network"), self.denied),
            None => write!(f, "{} denied", counted(self.denied, "network")),
        }
    }
}

/// A warning for each guard that a reload removes while it has edits: networks that an operator has denied while the
/// process ran. Edits are kept by the name of the guard, so there is also a warning when such a guard is added again.
#[must_use]
pub fn edit_warnings(old: &InForce, new: &InForce) -> Vec<String> {
    let edited_networks = |guard: &Guard| {
        let edits = guard.edit_count(Instant::now());
        (edits > 0).then(|| counted(edits, "network"))
    };
    let not_configured = |guard: &Arc<Guard>| {
        let (name, networks) = (guard.name(), edited_networks(guard)?);
        Some(format!(
            "guards.{name} is not configured any more: what `acequia guard deny` added to it ({networks}) is not \
             denied until a guard has this name again; `acequia guard undo` removes these denials"
        ))
    };
    let configured_again = |guard: &Arc<Guard>| {
        let (name, networks) = (guard.name(), edited_networks(guard)?);
        Some(format!(
            "guards.{name} is configured again: what `acequia guard deny` had added to it ({networks}) applies \
             again; see `acequia guard {name}`"
        ))
    };
    let removed = old
        .guards
        .iter()
        .filter(|guard| new.guards.named(guard.name()).is_none());
    let added = new
        .guards
        .iter()
        .filter(|guard| old.guards.named(guard.name()).is_none());
    let warnings = removed.filter_map(not_configured);
    warnings.chain(added.filter_map(configured_again)).collect()
}
