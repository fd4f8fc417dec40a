//! An open session of a worker.

use std::sync::Arc;

use super::record::Record;
use super::series::PathSeries;

/// An open session, and how much of its traffic has been published.
pub(super) struct OpenSession {
    pub(super) record: Arc<Record>,
    /// The path, once the session is connected to its server.
    pub(super) path: Option<Arc<PathSeries>>,
    /// Bytes up and down that are part of the metrics already.
    pub(super) published: (u64, u64),
}

impl OpenSession {
    /// Adds the bytes moved since the last call to the metrics of the path. Returns them; `None` without a path.
    pub(super) fn publish_traffic(&mut self) -> Option<(u64, u64)> {
        let path = self.path.as_ref()?;
        let traffic = &self.record.traffic;
        let total = (traffic.up.bytes(), traffic.down.bytes());
        let (up, down) = (total.0 - self.published.0, total.1 - self.published.1);
        path.add_bytes(up, down);
        self.published = total;
        Some((up, down))
    }
}
