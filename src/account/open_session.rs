//! An open session of a worker.

use std::sync::Arc;

use super::record::Record;
use super::series::WorkerPath;

/// An open session, and how much of its traffic has been published.
pub(super) struct OpenSession {
    pub(super) record: Arc<Record>,
    /// The series of its path (listener, pool and server); `None` while the session is not connected to a server.
    pub(super) path: Option<Arc<WorkerPath>>,
    /// The bytes up and the bytes down that have been added to the series already.
    pub(super) published: (u64, u64),
}

impl OpenSession {
    /// Adds to the series of the path the bytes that were moved and have not been added yet. Returns these bytes, up
    /// and down; `None`: there is no path.
    pub(super) fn publish_traffic(&mut self) -> Option<(u64, u64)> {
        let path = self.path.as_ref()?;
        let traffic = &self.record.traffic;
        let (total_up, total_down) = (traffic.up.bytes(), traffic.down.bytes());
        let (published_up, published_down) = self.published;
        let (up, down) = (total_up - published_up, total_down - published_down);
        path.add_bytes(up, down);
        self.published = (total_up, total_down);
        Some((up, down))
    }
}
