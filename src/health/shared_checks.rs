//! The running checks of all pools.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::context::CheckContext;
use super::server_check::ServerCheck;
use super::shared_probe::{CheckSetup, SharedProbe};
use crate::addr::ServerAddr;

/// The running checks of all pools.
pub(super) struct SharedChecks {
    pub(super) context: Arc<CheckContext>,
    /// The checks by the address to which they go. `Weak`: a check ends when its last [`CheckUse`] is dropped.
    // A blocking mutex: locked for a few lines when a server begins or ceases to be checked.
    by_address: Mutex<HashMap<ServerAddr, Vec<Weak<SharedCheck>>>>,
}

impl SharedChecks {
    /// No checks yet.
    pub(super) fn new(context: CheckContext) -> Arc<Self> {
        Arc::new(Self {
            context: Arc::new(context),
            by_address: Mutex::default(),
        })
    }

    /// Begins to check a server for a pool. If a check with the same setup already runs, that check is used. To be
    /// called within a runtime.
    pub(super) fn begin(self: &Arc<Self>, setup: CheckSetup, user: ServerCheck) -> CheckUse {
        let user = Arc::new(user);
        let mut by_address = self.by_address.lock();
        let at_address = by_address.entry(setup.address()).or_default();
        let is_like = |check: &Arc<SharedCheck>| check.probe.setup().is_like(&setup);
        let shared = at_address.iter().filter_map(Weak::upgrade).find(is_like);
        let shared = shared.unwrap_or_else(|| {
            let shared = Arc::new(SharedCheck::begin(self, setup));
            at_address.push(Arc::downgrade(&shared));
            shared
        });
        drop(by_address);
        shared.probe.join(Arc::clone(&user));
        CheckUse { shared, user }
    }
}

/// A check and its task. Dropping this ends the task, and removes the check from [`SharedChecks`].
struct SharedCheck {
    probe: Arc<SharedProbe>,
    checks: Arc<SharedChecks>,
    _task: AbortOnDropHandle<()>,
}

impl SharedCheck {
    fn begin(checks: &Arc<SharedChecks>, setup: CheckSetup) -> Self {
        let probe = Arc::new(SharedProbe::new(setup));
        let task = tokio::spawn(Arc::clone(&checks.context).check_repeatedly(Arc::clone(&probe)));
        Self {
            probe,
            checks: Arc::clone(checks),
            _task: AbortOnDropHandle::new(task),
        }
    }
}

impl Drop for SharedCheck {
    fn drop(&mut self) {
        let address = self.probe.setup().address();
        let mut by_address = self.checks.by_address.lock();
        if let Some(at_address) = by_address.get_mut(&address) {
            at_address.retain(|check| check.strong_count() > 0);
            if at_address.is_empty() {
                by_address.remove(&address);
            }
        }
    }
}

/// One pool's use of a running check for one of its servers. Dropping this ends the use.
pub(super) struct CheckUse {
    shared: Arc<SharedCheck>,
    user: Arc<ServerCheck>,
}

impl Drop for CheckUse {
    fn drop(&mut self) {
        self.shared.probe.leave(&self.user);
    }
}
