//! The status of the clones of one pool, and how many clones an operator wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ScaleStep;

/// The clones of a pool. A reload may build a new pool of the same name, which then shares this value. The supervisor
/// of the clones writes their status; an operator sets how many there should be.
#[derive(Debug, Default)]
pub struct PoolScale {
    // Blocking mutexes: locked for a few lines, and by no session.
    clones: Mutex<Vec<CloneStatus>>,
    wanted: Mutex<Option<WantedClones>>,
    wanted_changed: Notify,
    steps_up: AtomicU64,
    steps_down: AtomicU64,
    cold_starts: AtomicU64,
}

/// One clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneStatus {
    /// Its name, which is also that of its server.
    pub name: Arc<str>,
    /// Its state.
    pub state: CloneState,
    /// Whether it has been asked to leave its pool.
    pub is_leaving: bool,
    /// Since when it has this state.
    pub since: SystemTime,
    /// Its address; `None`: it has none at present.
    pub address: Option<Arc<str>>,
    /// Its process; `None`: there is none at present, or Docker or a hook has started the clone.
    pub pid: Option<u32>,
    /// The name of its container; `None`: there is none at present, or the clone is not a container.
    pub container: Option<Arc<str>>,
    /// How often it has been started again. While it waits for a start, that start is counted already.
    pub restarts: u32,
    /// Why it was last started again, or could not be started.
    pub reason: Option<Arc<str>>,
}

/// The state of a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneState {
    /// It is being started, or has been started and has not passed a check yet.
    Starting,
    /// It is a server of its pool.
    Running,
    /// It has failed, and will be started again.
    Waiting,
    /// It gets no new sessions; its present ones may go on for a while.
    Draining,
    /// It has been asked to end, or has ended by itself and what is left of it is removed.
    Stopping,
}

impl CloneState {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Running,
        Self::Waiting,
        Self::Draining,
        Self::Stopping,
    ];

    /// The word for it in metrics and API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }
}

/// How many clones an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedClones {
    /// How many.
    pub clones: u32,
    /// Who has set it.
    pub by: Arc<str>,
    /// When it was set.
    pub at: SystemTime,
}

/// The counts since the start of this process or, for a pool that a reload has added, since that reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleCounts {
    /// Steps in which the pool has grown.
    pub steps_up: u64,
    /// Steps in which the pool has shrunk.
    pub steps_down: u64,
    /// How often a client has woken the pool.
    pub cold_starts: u64,
}

impl PoolScale {
    /// The clones, sorted by the numbers in their names.
    #[must_use]
    pub fn clones(&self) -> Vec<CloneStatus> {
        self.clones.lock().clone()
    }

    /// Whether a clone can be expected to start when one is needed: there is no clone yet, or every clone that is not
    /// leaving is at its first start. `false` if an operator has set the number of clones to 0.
    #[must_use]
    pub fn can_start(&self) -> bool {
        let is_off = self.wanted().is_some_and(|wanted| wanted.clones == 0);
        let is_new = |clone: &CloneStatus| clone.state == CloneState::Starting && clone.reason.is_none();
        !is_off && self.clones.lock().iter().all(|clone| clone.is_leaving || is_new(clone))
    }

    /// Replaces the status of all clones.
    pub fn publish(&self, clones: Vec<CloneStatus>) {
        *self.clones.lock() = clones;
    }

    /// How many clones an operator wants; `None`: the load decides.
    #[must_use]
    pub fn wanted(&self) -> Option<WantedClones> {
        self.wanted.lock().clone()
    }

    /// Sets how many clones there should be; `None`: the load decides.
    pub fn set_wanted(&self, wanted: Option<WantedClones>) {
        *self.wanted.lock() = wanted;
        self.wanted_changed.notify_one();
    }

    /// Waits until [`Self::wanted`] may have changed. Only one task may wait for that.
    pub async fn wanted_changed(&self) {
        self.wanted_changed.notified().await;
    }

    /// Counts a step. `is_cold_start`: the pool had no clones but leaving ones, and a client waited for one.
    pub fn count_step(&self, step: ScaleStep, is_cold_start: bool) {
        let counter = match step {
            ScaleStep::Up(_) => &self.steps_up,
            ScaleStep::Down(_) => &self.steps_down,
        };
        counter.fetch_add(1, Relaxed);
        self.cold_starts.fetch_add(u64::from(is_cold_start), Relaxed);
    }

    /// The counts.
    #[must_use]
    pub fn counts(&self) -> ScaleCounts {
        ScaleCounts {
            steps_up: self.steps_up.load(Relaxed),
            steps_down: self.steps_down.load(Relaxed),
            cold_starts: self.cold_starts.load(Relaxed),
        }
    }
}
