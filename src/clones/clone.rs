//! The life of one clone. It is started and checked, serves as a server of its pool, and is drained and stopped. When
//! it fails, it is started again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::clone_name::CloneName;
use super::instance::{FailedStart, Instance, Launch};
use super::status_cell::{Shown, StatusCell};
use super::{CloneContext, KILL_AFTER};
use crate::addr::ServerAddr;
use crate::back_off::BackOff;
use crate::pool::{CheckState, ServerSpec};
use crate::scale::{CloneState, ScalePlan};
use crate::units::format_duration;

/// The time between two checks of a clone that starts.
const FAST_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How often a clone is polled: its sessions while it drains, its check state while it runs.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long a clone must have run so that its next failure counts as a first one: the back-off begins anew.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// The task that runs one clone.
pub(super) struct CloneTask {
    pub(super) context: Arc<CloneContext>,
    pub(super) name: CloneName,
    pub(super) status: Arc<StatusCell>,
    /// Cancelled when the clone shall leave its pool.
    pub(super) leave: CancellationToken,
    /// The plan of the pool when the clone was last started or stopped. It outlives the pool, because the clone is
    /// still drained when the pool is gone.
    pub(super) plan: Arc<ScalePlan>,
}

/// Why a clone no longer serves.
enum CloneEnd {
    /// It shall leave its pool.
    Leaving,
    /// It has ended by itself. The text says how, such as `exit status 1`.
    Exited(String),
    /// It has been down for too long.
    DownTooLong,
}

/// How a clone that has failed is started again.
struct Restart {
    /// The wait before the start.
    pause: Duration,
    /// Why the clone has failed.
    reason: String,
}

impl CloneTask {
    /// Runs the clone until it has left its pool.
    pub(super) async fn run(mut self) {
        self.run_until_left().await;
        self.status.set_left();
    }

    async fn run_until_left(&mut self) {
        let leave = self.leave.clone();
        let mut back_off = BackOff::default();
        while !leave.is_cancelled() {
            let Some(Restart { pause, reason }) = self.run_once(&mut back_off).await else {
                break;
            };
            self.status.enter(CloneState::Waiting, |shown| {
                shown.pause = pause;
                let status = &mut shown.status;
                (status.pid, status.container, status.address) = (None, None, None);
                status.restarts += 1;
                status.reason = Some(reason.into());
            });
            let _ = leave.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// Starts the clone, and runs it until it has failed or has left. Returns how it is started again; `None`: it has
    /// left.
    async fn run_once(&mut self, back_off: &mut BackOff) -> Option<Restart> {
        self.follow_plan();
        self.status.set_server(None);
        self.status
            .enter(CloneState::Starting, |shown| shown.status.address = None);
        let began = Instant::now();
        let mut instance = match self.start().await? {
            Ok(instance) => instance,
            Err(failed) => return Some(self.clean_up(failed, back_off.next_pause()).await),
        };
        self.note_started(&instance, began.elapsed());
        let started = Instant::now();
        let end = self.serve(&mut instance).await;
        if started.elapsed() >= STEADY_AFTER {
            back_off.reset();
        }
        self.finish(instance, end, back_off).await
    }

    /// Stops what a failed start has left running.
    async fn clean_up(&self, failed: FailedStart, pause: Duration) -> Restart {
        let FailedStart { reason, to_stop } = failed;
        if !self.context.shutdown.is_cancelled() {
            tracing::warn!(pool = %self.name.pool, clone = %self.name.clone, reason, pause = format_duration(pause), "a clone cannot be started");
        }
        if let Some(running) = to_stop {
            let shown_reason = Some(reason.as_str().into());
            self.status
                .enter(CloneState::Stopping, |shown| shown.status.reason = shown_reason);
            running.stop(&self.name, KILL_AFTER, &self.context.shutdown).await;
        }
        Restart { pause, reason }
    }

    /// Takes over the pool's `ScalePlan` in force, if there still is one.
    fn follow_plan(&mut self) {
        let in_force = self.context.live.in_force();
        if let Some(plan) = in_force
            .pool(&self.name.pool)
            .and_then(|pool| pool.plan().scale.as_ref())
        {
            self.plan = Arc::clone(plan);
        }
    }

    /// Starts the clone, and waits for its first good check. `None`: it was told to leave meanwhile, and is stopped.
    async fn start(&mut self) -> Option<Result<Instance, FailedStart>> {
        let launch = Launch {
            name: &self.name,
            ports: &self.context.ports,
            hook_addresses: &self.context.hook_addresses,
            containers: &self.context.containers,
            shutdown: &self.context.shutdown,
        };
        let prepared = self.leave.run_until_cancelled(launch.prepare(&self.plan.kind)).await;
        if let Err(reason) = prepared? {
            return Some(Err(reason.into()));
        }
        let (limit, began) = (self.plan.start_timeout, Instant::now());
        let mut instance = match launch.start(&self.plan.kind, limit).await {
            Ok(instance) => instance,
            Err(failed) => return Some(Err(failed)),
        };
        let (address, pid) = (instance.address, instance.pid);
        let container = instance.container().map(Into::into);
        self.status.enter(CloneState::Starting, |Shown { status, .. }| {
            (status.address, status.pid, status.container) = (Some(address.to_string().into()), pid, container);
        });
        if let Some(own) = self.context.live.own_listener_at(&self.name.pool, address) {
            let reason = format!("its address {address} is listener `{own}`, which leads back to the pool");
            let to_stop = Some(instance.into_running());
            return Some(Err(FailedStart { reason, to_stop }));
        }
        // Every branch is cancel safe: a check that is dropped closes its connection.
        let failure = tokio::select! {
            biased;
            () = self.first_good_check(address) => return Some(Ok(instance)),
            how = instance.ended() => Some(ended_early(&how)),
            () = sleep(limit.saturating_sub(began.elapsed())) => Some(format!("no good check within {}", format_duration(limit))),
            () = self.leave.cancelled() => None,
        };
        let running = instance.into_running();
        if let Some(reason) = failure {
            let to_stop = Some(running);
            return Some(Err(FailedStart { reason, to_stop }));
        }
        self.status.enter(CloneState::Stopping, |_| ());
        running.stop(&self.name, KILL_AFTER, &self.context.shutdown).await;
        None
    }

    /// Checks the clone until a check passes.
    async fn first_good_check(&self, address: ServerAddr) {
        loop {
            let in_force = self.context.live.in_force();
            let plan = in_force.pool(&self.name.pool).map(|pool| Arc::clone(pool.plan()));
            let tls = in_force.tls.pools.get(&self.name.pool).cloned();
            drop(in_force);
            if let Some(plan) = plan
                && self.context.checks.passes(&plan, &self.spec(address), tls).await
            {
                return;
            }
            sleep(FAST_CHECK_INTERVAL).await;
        }
    }

    fn spec(&self, address: ServerAddr) -> ServerSpec {
        ServerSpec {
            label: Arc::clone(&self.name.clone),
            identity: Arc::clone(&self.name.clone),
            address,
            resolved_from: None,
        }
    }

    /// Logs and shows that the clone has started.
    fn note_started(&self, instance: &Instance, took: Duration) {
        let CloneName { pool, clone } = &self.name;
        let (address, pid, container) = (instance.address.to_string(), instance.pid, instance.container());
        tracing::info!(%pool, %clone, address, pid, container, took = format_duration(took), "a clone has started");
        self.status.enter(CloneState::Running, |_| ());
    }

    /// Waits for a reason to stop the clone.
    async fn serve(&self, instance: &mut Instance) -> CloneEnd {
        tokio::select! {
            biased;
            () = self.leave.cancelled() => CloneEnd::Leaving,
            how = instance.ended() => CloneEnd::Exited(how),
            () = self.down_too_long() => CloneEnd::DownTooLong,
        }
    }

    /// Waits until the clone has been down for too long.
    async fn down_too_long(&self) {
        let mut down_since = None;
        loop {
            sleep(POLL_INTERVAL).await;
            let server = self.status.server();
            let is_down = server.is_some_and(|server| server.check_state() == CheckState::Down);
            if !is_down {
                down_since = None;
                continue;
            }
            let since = *down_since.get_or_insert_with(Instant::now);
            let pool = self.context.live.in_force().pool(&self.name.pool).map(Arc::clone);
            let plan = pool.and_then(|pool| pool.plan().scale.clone());
            if since.elapsed() >= plan.map_or(self.plan.replace_after, |plan| plan.replace_after) {
                return;
            }
        }
    }

    /// Stops the clone. Returns how it is started again; `None`: it has left.
    async fn finish(&mut self, mut instance: Instance, end: CloneEnd, back_off: &mut BackOff) -> Option<Restart> {
        self.follow_plan();
        let CloneName { pool, clone } = self.name.clone();
        match end {
            CloneEnd::Leaving => {
                self.drain(&mut instance).await;
                self.status.enter(CloneState::Stopping, |_| ());
                let kill_after = self.plan.drain;
                self.stop(instance, kill_after).await;
                tracing::info!(%pool, %clone, "a clone has left");
                None
            }
            CloneEnd::Exited(how) => {
                let pause = back_off.next_pause();
                tracing::warn!(%pool, %clone, how, pause = format_duration(pause), "a clone has ended: it is started again");
                self.status.enter(CloneState::Stopping, |_| ()); // it may take long to remove its container
                self.stop(instance, KILL_AFTER).await;
                Some(Restart { pause, reason: how })
            }
            CloneEnd::DownTooLong => {
                tracing::warn!(%pool, %clone, after = format_duration(self.plan.replace_after), "a clone is down for too long: it is replaced");
                self.status.enter(CloneState::Stopping, |_| ());
                self.stop(instance, KILL_AFTER).await;
                Some(Restart {
                    pause: Duration::ZERO,
                    reason: "it was down for too long".into(),
                })
            }
        }
    }

    async fn stop(&self, instance: Instance, kill_after: Duration) {
        let running = instance.into_running();
        running.stop(&self.name, kill_after, &self.context.shutdown).await;
    }

    /// Waits until the sessions of the clone have ended, or it has ended itself, or acequia shuts down; for at most the
    /// drain time of the plan.
    async fn drain(&self, instance: &mut Instance) {
        let server = self.status.server();
        self.status.enter(CloneState::Draining, |_| ());
        let drained = async {
            loop {
                // The first look is not at once: a pick that began before the server left the list may still open a
                // session on it.
                sleep(POLL_INTERVAL).await;
                if server.as_ref().is_none_or(|server| server.live() == 0) {
                    return;
                }
            }
        };
        let drained = pin!(timeout(self.plan.drain, drained));
        tokio::select! {
            _ = drained => {}
            _ = instance.ended() => {}
            () = self.context.shutdown.cancelled() => {}
        }
    }
}

/// The reason of a failed start, for a clone that has ended before its first good check.
fn ended_early(how: &str) -> String {
    let hint = match how {
        "exit status 0" => " (a clone must stay in the foreground)",
        _ => "",
    };
    format!("it has ended before its first good check: {how}{hint}")
}
