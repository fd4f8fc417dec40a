//! The state of the source of announced routes, and its latest list.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Live, SourceState};
use crate::plan::{Announcement, KeptAnnouncement};
use crate::text::Reason;

/// The state of the source of announced routes, and its latest list.
#[derive(Debug, Default)]
pub(super) struct Announcing {
    source: SourceState,
    latest: Arc<[Announcement]>,
}

impl Live {
    /// The state of the source of announced routes.
    #[must_use]
    pub fn announcing(&self) -> SourceState {
        self.announcing.lock().source.clone()
    }

    /// Records that the source of announced routes has given this list, which is in force. Returns whether its previous
    /// answer was not usable, or there was none.
    pub fn record_announced(&self, latest: &Arc<[Announcement]>, at: SystemTime) -> bool {
        let mut announcing = self.announcing.lock();
        if announcing.latest != *latest {
            announcing.latest = Arc::clone(latest);
            self.announced_changed.notify_one();
        }
        announcing.source.record_success(at, None)
    }

    /// Records that the source of announced routes has failed. Returns whether its previous answer was usable, or there
    /// was none.
    pub fn record_announcing_failure(&self, error: Reason) -> bool {
        self.announcing.lock().source.record_failure(error)
    }

    /// Begins with the routes that were announced before the process was started. They are in force, as far as the plan
    /// accepts them.
    pub fn restore_announced(&self, latest: &Arc<[Announcement]>) {
        self.announcing.lock().latest = Arc::clone(latest);
    }

    /// The latest announcements that have a usable server, as they are kept over a restart.
    #[must_use]
    pub fn announced(&self) -> Vec<KeptAnnouncement> {
        let latest = Arc::clone(&self.announcing.lock().latest);
        latest.iter().filter_map(KeptAnnouncement::new).collect()
    }

    /// Waits until [`Self::announced`] may have changed. Only one task may wait for that.
    pub async fn announced_changed(&self) {
        self.announced_changed.notified().await;
    }
}
