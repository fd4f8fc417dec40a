//! What the handlers of the admin port share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::account::{Ledger, Metrics};
use crate::addr::ListenAddr;
use crate::capacity::ListenerLimits;
use crate::live::Live;
use crate::reload::Reloader;

/// What the handlers of the admin port read and change.
pub struct Admin {
    /// The series.
    pub metrics: Arc<Metrics>,
    /// The sessions that listeners have, and may have.
    pub limits: Arc<ListenerLimits>,
    /// The plan in force.
    pub live: Arc<Live>,
    /// Set when the process begins to drain.
    pub is_draining: AtomicBool,
    /// One per worker.
    pub ledgers: Vec<Arc<Ledger>>,
    /// Requests reloads.
    pub reloader: Reloader,
    /// When the process started.
    pub started: SystemTime,
    /// The absolute path of the configuration; `None`: the process runs without a file.
    pub configuration: Option<PathBuf>,
    /// The addresses that listeners are bound to, in the order of the plan.
    pub addresses: ArcSwap<Vec<(Arc<str>, Vec<ListenAddr>)>>,
}
