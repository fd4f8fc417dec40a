//! What is known of the source of announced routes.

use std::sync::{MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Live, SourceState};
use crate::text::Reason;

impl Live {
    /// What is known of the source of announced routes.
    #[must_use]
    pub fn announcing(&self) -> SourceState {
        self.lock_announcing().clone()
    }

    /// Records that the source of announced routes has given a list, which is in force. Returns whether it has not given one
    /// the last time.
    pub fn record_announced(&self, at: SystemTime) -> bool {
        self.lock_announcing().record_success(at, None)
    }

    /// Records that the source of announced routes has failed. Returns whether it has not failed the last time.
    pub fn record_announcing_failure(&self, error: Reason) -> bool {
        self.lock_announcing().record_failure(error)
    }

    fn lock_announcing(&self) -> MutexGuard<'_, SourceState> {
        self.announcing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
