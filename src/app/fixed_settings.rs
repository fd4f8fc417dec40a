//! The settings that only a restart can change.

use std::path::PathBuf;

use crate::plan::{AdminPlan, Plan};

/// The values that these settings had at the start. A reload reports the settings that now have other values.
pub(super) struct FixedSettings {
    pub(super) workers: Option<usize>,
    pub(super) state_dir: Option<PathBuf>,
    /// Only `bind` and `socket` of it are fixed.
    pub(super) admin: AdminPlan,
}

impl FixedSettings {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            workers: plan.runtime.workers,
            state_dir: plan.state_dir.clone(),
            admin: plan.admin.clone(),
        }
    }
}
