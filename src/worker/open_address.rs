//! An address that workers listen on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::{Notify, watch};

use crate::session::ListenerState;

/// What the open sockets of one address share.
pub struct OpenAddress {
    state: watch::Sender<Arc<ListenerState>>,
    is_lost: AtomicBool,
    lost: Arc<Notify>,
}

impl OpenAddress {
    /// An address of the listener with this state. `lost` is notified when one of the sockets was shut down.
    #[must_use]
    pub fn new(state: Arc<ListenerState>, lost: Arc<Notify>) -> Self {
        Self {
            state: watch::Sender::new(state),
            is_lost: AtomicBool::new(false),
            lost,
        }
    }

    /// Whether one of the sockets was shut down from outside, so that the address is to be bound again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }

    /// Records that a socket was shut down from outside.
    pub(super) fn record_loss(&self) {
        if !self.is_lost.swap(true, Relaxed) {
            self.lost.notify_one(); // after the store: the task that wakes up must see `is_lost`
        }
    }

    /// The current state, and those that follow it.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<Arc<ListenerState>> {
        self.state.subscribe()
    }

    /// Gives the sockets another state: of their listener, or of another listener that takes over their clients.
    pub fn set_state(&self, state: Arc<ListenerState>) {
        self.state.send_replace(state);
    }
}
