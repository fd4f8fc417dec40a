//! The names of a clone and its pool.

use std::sync::Arc;

/// A clone, by its name and that of its pool.
#[derive(Clone)]
pub(super) struct CloneName {
    pub(super) pool: Arc<str>,
    pub(super) clone: Arc<str>,
}

impl CloneName {
    /// Logs a line that it has printed, with the number of lines before it that were not logged.
    pub(super) fn log_line(&self, line: &str, suppressed: u64) {
        let Self { pool, clone } = self;
        let suppressed = Some(suppressed).filter(|suppressed| *suppressed > 0);
        tracing::info!(%pool, %clone, line, suppressed, "printed by a clone");
    }
}
