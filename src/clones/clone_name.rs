//! Which clone of which pool something is about.

use std::sync::Arc;

/// A clone by its names.
#[derive(Clone)]
pub(super) struct CloneName {
    pub(super) pool: Arc<str>,
    pub(super) clone: Arc<str>,
}

impl CloneName {
    /// Logs a line that it has printed, after so many that are not told.
    pub(super) fn log_line(&self, line: &str, suppressed: u64) {
        let Self { pool, clone } = self;
        let suppressed = Some(suppressed).filter(|suppressed| *suppressed > 0);
        tracing::info!(%pool, %clone, line, suppressed, "printed by a clone");
    }
}
