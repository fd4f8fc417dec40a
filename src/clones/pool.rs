//! The clones of one pool.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::CloneContext;
use super::clone::CloneTask;
use super::clone_name::CloneName;
use super::status_cell::StatusCell;
use crate::addr::{ServerAddr, ServerLocation};
use crate::live::LivePool;
use crate::plan::{Lister, ServerEntry};
use crate::pool::Member;
use crate::scale::{CloneState, CloneStatus, ScaleLoad, ScalePlan, ScaleStep, Scaler};

/// How often the load is looked at.
const TICK: Duration = Duration::from_secs(1);

/// The clones of one pool.
pub(super) struct PoolClones {
    context: Arc<CloneContext>,
    /// The last pool that it was given, by [`Self::new`] or [`Self::run`].
    pool: Arc<LivePool>,
    scaler: Scaler,
    /// By number.
    clones: BTreeMap<u32, CloneHandle>,
    /// Notified when a clone has changed its state.
    changed: Arc<Notify>,
    /// The servers that the pool was last given.
    published: Vec<ServerEntry>,
}

/// A clone, as its pool holds it.
struct CloneHandle {
    status: Arc<StatusCell>,
    leave: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl PoolClones {
    pub(super) fn new(context: Arc<CloneContext>, pool: Arc<LivePool>) -> Self {
        Self {
            context,
            pool,
            scaler: Scaler::default(),
            clones: BTreeMap::new(),
            changed: Arc::default(),
            published: Vec::new(),
        }
    }

    /// Keeps as many clones as the load needs. `pools` has the pool in force; `None`: it is to have no clones any more.
    /// Returns once all clones have left: after a `None` (unless another pool follows it), or when this process ends.
    pub(super) async fn run(mut self, mut pools: watch::Receiver<Option<Arc<LivePool>>>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.context.shutdown.clone();
        let mut may_have_clones = true;
        loop {
            let is_ending = shutdown.is_cancelled();
            // The pool may have come back. The supervisor starts no other task for it while this task runs.
            let has_next_pool = pools.has_changed().unwrap_or(false);
            let is_done = is_ending || (!may_have_clones && !has_next_pool);
            if is_done && self.clones.is_empty() {
                break;
            }
            let scale = Arc::clone(self.pool.scale());
            tokio::select! {
                () = shutdown.cancelled(), if !is_ending => {}
                pool = next(&mut pools), if !is_ending => {
                    may_have_clones = pool.is_some();
                    self.pool = pool.unwrap_or(self.pool);
                    // Before `Self::scale`, which counts servers: the new pool may not have the clones as servers yet.
                    self.publish(may_have_clones);
                }
                _ = ticks.tick() => {}
                () = self.pool.queue_joined() => {}
                () = scale.wanted_changed() => {}
                () = self.changed.notified() => {}
            }
            self.clones.retain(|_, clone| !clone.has_left());
            match self.pool.plan().scale.clone().filter(|_| may_have_clones) {
                _ if shutdown.is_cancelled() => {} // all clones are leaving
                Some(plan) => self.scale(&plan),
                None if self.holds_clones() => {}
                None => self.clones.values().for_each(|clone| clone.leave.cancel()),
            }
            self.publish(may_have_clones);
        }
        self.publish(may_have_clones);
    }

    /// Whether the pool keeps its clones for now: it is to have other servers, and no usable one is listed yet.
    fn holds_clones(&self) -> bool {
        let in_force = self.context.live.in_force();
        let holds = |pool: &Arc<LivePool>| pool.dynamic().holds_clones();
        in_force.pool(self.pool.name()).is_some_and(holds)
    }

    /// Starts or stops clones as the scaler says.
    fn scale(&mut self, plan: &Arc<ScalePlan>) {
        let wanted = self.pool.scale().wanted();
        let load = self.load();
        let step = self.scaler.decide(
            &plan.rules,
            wanted.as_ref().map(|wanted| wanted.clones),
            load,
            Instant::now(),
        );
        let Some(step) = step else { return };
        let is_cold_start = load.clones == 0 && load.waiting > 0;
        self.pool.scale().count_step(step, is_cold_start);
        let (sessions, waiting) = (load.sessions, load.waiting);
        let by = wanted.as_ref().map(|wanted| &*wanted.by);
        let (pool, clones) = (self.pool.name(), load.clones);
        match step {
            ScaleStep::Up(more) => {
                tracing::info!(%pool, clones, more, sessions, waiting, by, "the pool grows");
                (0..more).for_each(|_| self.start(plan));
            }
            ScaleStep::Down(fewer) => {
                tracing::info!(%pool, clones, fewer, sessions, by, "the pool shrinks");
                (0..fewer).for_each(|_| self.stop_one());
            }
        }
    }

    /// What the scaler decides on.
    fn load(&self) -> ScaleLoad {
        let servers = self.pool.servers();
        let is_clone = |name: &Arc<str>| self.published.iter().any(|entry| entry.label() == name);
        let up = || servers.iter().filter(|server| server.is_up());
        let is_fixed = |server: &&Member| server.is_in_service() && !is_clone(&server.spec().label);
        let fixed = up().filter(is_fixed).count();
        let staying = self.clones.values().filter(|clone| !clone.is_leaving());
        ScaleLoad {
            sessions: self.pool.sessions(),
            waiting: self.pool.queue_len() as u64,
            has_server: fixed > 0 || up().any(|server| is_clone(&server.spec().label)),
            fixed: u32::try_from(fixed).unwrap_or(u32::MAX),
            clones: u32::try_from(staying.count()).unwrap_or(u32::MAX),
        }
    }

    /// Starts a clone with the lowest free number.
    fn start(&mut self, plan: &Arc<ScalePlan>) {
        let number = (1..).find(|number| !self.clones.contains_key(number));
        let number = number.expect("there are fewer clones than numbers");
        let name: Arc<str> = format!("{}-{number}", self.pool.name()).into();
        let status = Arc::new(StatusCell::new(Arc::clone(&name), Arc::clone(&self.changed)));
        let leave = self.context.shutdown.child_token();
        let task = CloneTask {
            context: Arc::clone(&self.context),
            name: CloneName {
                pool: Arc::clone(self.pool.name()),
                clone: name,
            },
            status: Arc::clone(&status),
            leave: leave.clone(),
            plan: Arc::clone(plan),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
        let clone = CloneHandle { status, leave, task };
        self.clones.insert(number, clone);
    }

    /// Asks one clone to leave: one that is not a server now, else the one with the fewest sessions; among equals, the
    /// one with the highest number.
    fn stop_one(&mut self) {
        let servers = self.pool.servers();
        let sessions = |status: &CloneStatus| {
            let server = servers.iter().find(|server| server.spec().label == status.name);
            server
                .filter(|_| status.state == CloneState::Running)
                .map(|server| server.live())
        };
        let staying = self.clones.iter().filter(|(_, clone)| !clone.is_leaving());
        let first = staying.min_by_key(|(number, clone)| (sessions(&clone.status.get()), std::cmp::Reverse(**number)));
        if let Some((_, clone)) = first {
            clone.leave.cancel();
        }
    }

    /// Gives the pool its running clones as servers, if it is to have clones, and publishes the status of all clones.
    fn publish(&mut self, may_have_clones: bool) {
        let clones: Vec<_> = self.clones.values().map(CloneHandle::shown).collect();
        let Some(plan) = self.pool.plan().scale.clone().filter(|_| may_have_clones) else {
            self.pool.scale().publish(clones);
            self.pool.set_start_wait(None);
            self.published.clear(); // so that the servers are set again if the pool is to have clones again
            return;
        };
        let running = clones.iter().filter(|clone| clone.state == CloneState::Running);
        let servers: Vec<_> = running.filter_map(|clone| entry(clone, &plan)).collect();
        self.pool.scale().publish(clones);
        if servers != self.published {
            let live = &self.context.live;
            live.set_servers(self.pool.name(), Lister::Clones, servers.clone());
            self.published = servers;
            self.assign_servers();
        }
        let starts_one = self.clones.values().any(CloneHandle::is_starting_soon);
        self.pool.set_start_wait(starts_one.then_some(plan.start_timeout));
    }

    /// Tells the clones which server each of them is.
    fn assign_servers(&self) {
        let Some(pool) = self.context.live.in_force().pool(self.pool.name()).map(Arc::clone) else {
            return;
        };
        let servers = pool.servers();
        for clone in self.clones.values().filter(|clone| !clone.is_leaving()) {
            let CloneStatus { name, address, .. } = clone.status.get();
            let is_own = |server: &&Member| {
                let spec = server.spec();
                spec.label == name && address.as_deref() == Some(&*spec.address.to_string())
            };
            clone.status.set_server(servers.iter().find(is_own).cloned());
        }
    }
}

/// The next pool. Never returns if the sender is gone, because this process ends then.
async fn next(pools: &mut watch::Receiver<Option<Arc<LivePool>>>) -> Option<Arc<LivePool>> {
    match pools.changed().await {
        Ok(()) => pools.borrow_and_update().clone(),
        Err(_) => pending().await,
    }
}

impl CloneHandle {
    /// Whether it was asked to leave.
    fn is_leaving(&self) -> bool {
        self.leave.is_cancelled()
    }

    /// Whether it has left its pool, or its task has panicked.
    fn has_left(&self) -> bool {
        self.status.has_left() || self.task.is_finished()
    }

    /// Whether it stays in its pool, and is being started or will be soon.
    fn is_starting_soon(&self) -> bool {
        !self.is_leaving() && self.status.is_starting_soon()
    }

    /// The status to show. A running clone that is asked to leave is shown as draining at once, before its task
    /// notices.
    fn shown(&self) -> CloneStatus {
        let mut status = self.status.get();
        status.is_leaving = self.is_leaving();
        if self.is_leaving() && status.state == CloneState::Running {
            (status.state, status.since) = (CloneState::Draining, SystemTime::now());
        }
        status
    }
}

/// The clone as a server of its pool.
fn entry(clone: &CloneStatus, plan: &ScalePlan) -> Option<ServerEntry> {
    let written = clone.address.clone()?;
    let address: SocketAddr = written.parse().ok()?;
    Some(ServerEntry {
        name: Some(Arc::clone(&clone.name)),
        written,
        location: ServerLocation::Address(ServerAddr::new(address)),
        member_config: plan.member_config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clone_whose_task_has_panicked_counts_as_left() {
        let clone = CloneHandle {
            status: Arc::new(StatusCell::new("app-1".into(), Arc::default())),
            leave: CancellationToken::new(),
            task: AbortOnDropHandle::new(tokio::spawn(async { panic!("expected by the test") })),
        };
        while !clone.task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(clone.has_left());
    }
}
