//! The settings that a reload does not change.

use std::path::PathBuf;

use crate::plan::{AdminPlan, Plan};

/// The settings that cannot be changed without a restart.
pub(super) struct FixedSettings {
    pub(super) workers: Option<usize>,
    pub(super) state_dir: Option<PathBuf>,
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
