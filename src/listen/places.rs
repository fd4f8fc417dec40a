//! How many sessions there may be at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many sessions there may be: of the process, and of a listener.
#[derive(Clone, Debug)]
pub struct Places {
    listener: Arc<Semaphore>,
    listener_max: usize,
    process: Arc<Semaphore>,
}

/// A session's place among those there may be. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    _listener: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
}

impl Places {
    /// Places of a listener, within those of the process. `None`: as many as the process has.
    #[must_use]
    pub fn new(listener_max: Option<usize>, process: Arc<Semaphore>) -> Self {
        let listener_max = listener_max
            .unwrap_or(Semaphore::MAX_PERMITS)
            .min(Semaphore::MAX_PERMITS);
        Self {
            listener: Arc::new(Semaphore::new(listener_max)),
            listener_max,
            process,
        }
    }

    /// Places taken on this listener: its sessions.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.listener_max.saturating_sub(self.listener.available_permits())
    }

    /// A place if there is one.
    pub(super) fn try_take(&self) -> Option<Permit> {
        let listener = Arc::clone(&self.listener).try_acquire_owned().ok()?;
        let process = Arc::clone(&self.process).try_acquire_owned().ok()?;
        Some(Permit {
            _listener: listener,
            _process: process,
        })
    }

    /// A place as soon as there is one; first come, first served over all workers. Who waits for one half of it does
    /// not hold the other: it would be missed elsewhere, and counted as a session.
    pub(super) async fn take(&self) -> Permit {
        const OPEN: &str = "these semaphores are never closed";
        let permit = |listener, process| Permit {
            _listener: listener,
            _process: process,
        };
        loop {
            let listener = Arc::clone(&self.listener).acquire_owned().await.expect(OPEN);
            if let Ok(process) = Arc::clone(&self.process).try_acquire_owned() {
                return permit(listener, process);
            }
            drop(listener);
            let process = Arc::clone(&self.process).acquire_owned().await.expect(OPEN);
            if let Ok(listener) = Arc::clone(&self.listener).try_acquire_owned() {
                return permit(listener, process);
            }
        }
    }
}
