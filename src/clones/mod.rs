//! Starts and stops clones: the copies of a server with which a pool grows and shrinks. [`crate::scale`] decides when.
//!
//! Every such pool has one task that watches its load, and one more for each clone. A clone becomes a server of its
//! pool with its first good check. A reload keeps the clones of pools that still scale; all end with this process.

mod ports;
mod clone_name;
mod hook_addresses;
mod hook;
mod instance_file;
mod own_containers;
mod container_follower;
mod container;
mod instance;
mod status_cell;
mod clone;
mod pool;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::health::SingleChecks;
use crate::live::{InForce, Live, LivePool};
use hook_addresses::HookAddresses;
use own_containers::OwnContainers;
use pool::PoolClones;
use ports::Ports;

/// The time between SIGTERM and SIGKILL of a clone. A clone that leaves its pool after it has served gets
/// [`drain`](crate::scale::ScalePlan::drain) instead, but at most `KILL_AFTER` once this process ends.
const KILL_AFTER: Duration = Duration::from_secs(10);

/// Starts and stops the clones of all pools.
pub struct CloneSupervisor {
    context: Arc<CloneContext>,
    /// The tasks of pools, and those that remove containers.
    tasks: TaskTracker,
}

/// What the clones of all pools share.
struct CloneContext {
    live: Arc<Live>,
    /// For the first checks of a clone.
    checks: SingleChecks,
    ports: Ports,
    hook_addresses: HookAddresses,
    containers: Arc<OwnContainers>,
    /// Cancelled when this process ends.
    shutdown: CancellationToken,
}

/// The tasks of pools, by pool name. Each gets its pool, or `None` when the pool is to have no clones any more.
type PoolClonesTasks = HashMap<Arc<str>, watch::Sender<Option<Arc<LivePool>>>>;

impl CloneSupervisor {
    /// A supervisor that has started nothing yet.
    #[must_use]
    pub fn new(live: Arc<Live>, checks: SingleChecks) -> Self {
        let containers = OwnContainers::new(live.plan().state_dir.as_deref());
        Self {
            context: Arc::new(CloneContext {
                live,
                checks,
                ports: Ports::default(),
                hook_addresses: HookAddresses::default(),
                containers: Arc::new(containers),
                shutdown: CancellationToken::new(),
            }),
            tasks: TaskTracker::new(),
        }
    }

    /// Gives each pool in force the clones that it needs, for as long as this is polled.
    pub fn run(&self) -> impl Future<Output = ()> + use<> {
        let (context, tracker) = (Arc::clone(&self.context), self.tasks.clone());
        spawn_container_removals(&context, &tracker);
        let mut updates = context.live.subscribe();
        async move {
            let mut tasks = PoolClonesTasks::new();
            loop {
                let in_force = Arc::clone(&updates.borrow_and_update());
                adopt(&mut tasks, &in_force, &context, &tracker);
                drop(in_force);
                if updates.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Stops all clones, and waits until they have ended. To be called when there are no sessions any more.
    ///
    /// The wait takes about 10 s if clones do not end after SIGTERM, and 20 s if a process does not end after SIGKILL.
    /// It also ends when `at_once` is ready: the keepers ([`crate::scale::keeper`]) kill the clones when acequia has
    /// ended.
    pub async fn stop(&self, at_once: impl Future<Output = ()>) {
        self.context.shutdown.cancel();
        self.tasks.close();
        tokio::select! {
            biased;
            () = at_once => {}
            () = self.tasks.wait() => {
                let containers = Arc::clone(&self.context.containers);
                let _ = spawn_blocking(move || containers.finish()).await; // a panic was logged
            }
        }
    }
}

/// Starts to remove the containers that earlier processes of acequia have left behind, and those of this process whose
/// `HeldContainer` is dropped.
fn spawn_container_removals(context: &Arc<CloneContext>, tracker: &TaskTracker) {
    let shared = Arc::clone(context);
    tracker.spawn(async move { shared.containers.remove_orphans(&shared.shutdown).await });
    let shared = Arc::clone(context);
    tracker.spawn(async move { shared.containers.remove_unheld(&shared.shutdown).await });
}

/// Gives each task its pool of the plan in force, and starts the tasks of new pools.
fn adopt(tasks: &mut PoolClonesTasks, in_force: &InForce, context: &Arc<CloneContext>, tracker: &TaskTracker) {
    let scaled = |name: &str| in_force.pool(name).filter(|pool| pool.plan().scale.is_some());
    tasks.retain(|name, task| {
        task.send_if_modified(|pool| {
            let next = scaled(name);
            let is_same = pool.as_ref().map(Arc::as_ptr) == next.map(Arc::as_ptr);
            *pool = next.map(Arc::clone);
            !is_same
        });
        !task.is_closed() // closed: all clones have left, and the task has ended
    });
    for pool in in_force.pools.iter().filter(|pool| pool.plan().scale.is_some()) {
        if !tasks.contains_key(pool.name()) {
            let (sender, receiver) = watch::channel(Some(Arc::clone(pool)));
            tracker.spawn(PoolClones::new(Arc::clone(context), Arc::clone(pool)).run(receiver));
            tasks.insert(Arc::clone(pool.name()), sender);
        }
    }
}
