//! The composition root: binds, spawns tasks, handles signals, reloads, and ends the process.

mod allocator;
mod failure;
mod files;
mod fixed_settings;
mod acme;
mod written;
mod pool_tls;
mod listener_tls;
mod recoveries;
mod descriptor_budget;
mod listen_sockets;
mod service_manager;
mod background;
mod signals;
mod watch;
mod old_plan;
mod announced;
mod remote;
mod reload;
mod start;

use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::account::access_log::{AccessLog, AccessLogWriter};
use crate::addr::ListenAddr;
use crate::admin::{Admin, AdminEndpoint};
use crate::clones::CloneSupervisor;
use crate::drain::Drain;
use crate::health::HealthMonitor;
use crate::live::{InForce, Live};
use crate::plan::{LogPlan, Plan, RemotePlan};
use crate::reload::Request;
use crate::remote::RemoteConfig;
use crate::state_dir::StateKeeper;
use crate::text::counted;
use crate::units::format_duration;
use announced::Announced;
use background::reopen_on_signal;
use descriptor_budget::DescriptorBudget;
pub use failure::Failure;
use failure::system;
pub use files::{file_warnings, unreadable};
use fixed_settings::FixedSettings;
use listen_sockets::{ListenSockets, NewlyListening};
pub use listener_tls::{load_tls, tls_warnings};
use remote::first_plans;
use signals::{End, EndSignals, Signals};
use start::open_first;
pub use written::unwritable;

/// The log target of the messages with addresses that clients connect to. They are logged whatever level is configured.
pub const ANNOUNCE: &str = "acequia::announce";

/// Applies new settings to the diagnostic log.
pub type ReconfigureLog = Box<dyn Fn(&LogPlan)>;

/// Where the configuration comes from, and how its settings of the diagnostic log are applied.
#[derive(Default)]
pub struct ConfigSource {
    /// The file that a reload reads; `None`: there is none, and no reload.
    pub file: Option<PathBuf>,
    /// Whether the file was no regular one at the start, but a pipe, for example.
    pub is_pipe: bool,
    /// The text that the first plan was read from.
    pub text: String,
    /// Called when the settings of the diagnostic log change.
    pub reconfigure_log: Option<ReconfigureLog>,
}

impl ConfigSource {
    /// The absolute path of the file: clients of the API may run in another directory.
    fn path(&self) -> Option<PathBuf> {
        std::path::absolute(self.file.as_deref()?).ok()
    }
}

/// Runs a plan until a signal ends it. If the plan refers to a store, the texts of the store are added to it; without
/// usable texts, it is run as it is. Calls `started` as soon as connections are accepted.
///
/// # Errors
/// Why the process could not start or go on.
pub fn run(plan: Plan, source: ConfigSource, started: impl FnOnce(&Running)) -> Result<(), Failure> {
    allocator::map_large_blocks();
    let control = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("cannot start an event loop (epoll, eventfd)"))?;
    let ended = run_on(&control, plan, source, started);
    // Lookups of host names run in threads that cannot be interrupted. They must not delay the end of the process.
    control.shutdown_background();
    ended
}

/// As [`run`], on this runtime.
fn run_on(control: &Runtime, plan: Plan, source: ConfigSource, started: impl FnOnce(&Running)) -> Result<(), Failure> {
    let within = control.enter();
    // Before the store is read, which may take long: a signal without a handler would kill the process.
    let mut signals = Signals::new().map_err(system("cannot listen to signals"))?;
    let remote = Arc::new(RemoteConfig::default());
    let plans = control.block_on(async {
        tokio::select! {
            biased;
            _ = signals.end.first() => None,
            plans = first_plans(plan, &source, &remote) => Some(plans),
        }
    });
    let Some(plans) = plans else {
        tracing::info!("ended by a signal before the start");
        return Ok(());
    };
    // Not in `block_on`: an error drops the runtime of a worker, and in `block_on` that would panic.
    let (app, drain) = open_first(plans, &Rc::new(source), &remote)?;
    drop(within);
    started(&app.running);
    service_manager::ready(&app.status());
    control.block_on(app.run(signals, drain))
}

/// What the caller of [`run`] gets when the process has started.
#[derive(Clone, Debug)]
pub struct Running {
    /// The address of the admin port.
    pub admin: Option<ListenAddr>,
    /// The plan and the pools in force, with the addresses of the listeners.
    pub live: Arc<Live>,
}

impl Running {
    fn new(endpoints: &[AdminEndpoint], live: Arc<Live>) -> Self {
        Self {
            admin: endpoints.iter().find_map(AdminEndpoint::address),
            live,
        }
    }
}

/// Logs every address of every listener. To be called when the listeners accept clients.
pub fn log_addresses(in_force: &InForce) {
    for (listener, addresses) in in_force.listeners() {
        for address in addresses {
            tracing::info!(target: ANNOUNCE, listener = %listener.name, %address, "listening");
        }
    }
}

/// Everything that runs beside the workers.
struct App {
    running: Running,
    source: Rc<ConfigSource>,
    sockets: ListenSockets,
    health: HealthMonitor,
    clones: CloneSupervisor,
    budget: DescriptorBudget,
    fixed: FixedSettings,
    /// Reloads when the file changes.
    watching: Option<AbortOnDropHandle<()>>,
    /// The state of the configuration from a store.
    remote: Arc<RemoteConfig>,
    /// Follows the store of this plan.
    following: Option<(RemotePlan, AbortOnDropHandle<()>)>,
    admin: Arc<Admin>,
    requests: Receiver<Request>,
    log: AccessLog,
    log_writer: AccessLogWriter,
    /// Writes `state_dir`, if there is one.
    state: Option<StateKeeper>,
    /// The routes that are announced.
    announced: Announced,
    /// The admin port and other background tasks, which end when this is dropped.
    tasks: JoinSet<()>,
}

impl App {
    /// Updates everything for the first plan. Begins to watch the file and to follow the store, if that is configured.
    fn begin(&mut self, listening: NewlyListening, drain: &Drain) {
        let in_force = self.running.live.in_force();
        self.update_dependents(&in_force, listening, drain);
        let text = in_force.plan.runtime.watch.then(|| self.source.text.clone());
        if text.is_some() && self.source.is_pipe {
            tracing::warn!("`watch` has no effect: the configuration was read from a pipe");
        }
        self.watch(text);
        self.follow_store(in_force.plan.remote.as_ref());
    }

    /// The text that `systemctl status` shows.
    fn status(&self) -> String {
        let plan = self.running.live.plan();
        if let Some(awaited) = plan.why_not_ready() {
            return format!("waiting for {awaited}");
        }
        let (listeners, pools) = (plan.listeners.len(), plan.pools.len());
        format!("{}, {}", counted(listeners, "listener"), counted(pools, "pool"))
    }

    /// Runs until a signal comes, then drains. If a worker is lost, all sessions are closed without a drain, so that a
    /// supervisor can restart the process at once.
    async fn run(mut self, signals: Signals, drain: Drain) -> Result<(), Failure> {
        let Signals {
            reopen,
            reload,
            end: mut end_signals,
        } = signals;
        self.tasks.spawn(reopen_on_signal(self.log.clone(), reopen));
        self.tasks.spawn(self.health.run());
        self.tasks.spawn(self.clones.run());
        let ended = tokio::select! {
            grace = self.run_until_signal(&mut end_signals, reload, &drain) => Ok(grace),
            () = drain.worker_lost() => Err(Failure::WorkersGone),
        };
        let grace = *ended.as_ref().unwrap_or(&Duration::ZERO);
        let was_cut = drain.finish(grace, end_signals.cut_requested()).await;
        tracing::info!(was_cut, "drained");
        self.clones.stop(end_signals.cut_requested()).await;
        self.tasks.shutdown().await;
        let Self {
            log,
            log_writer,
            admin,
            state,
            ..
        } = self;
        if let Some(state) = state {
            state.finish().await;
        }
        drop((log, admin)); // the last senders to the log writer, so that it ends
        if !log_writer.finish() {
            tracing::warn!("nobody reads the access log: its last lines are lost");
        }
        ended.map(drop)
    }

    /// Reloads on every request until a signal ends the process, then waits for the drain delay. Returns how long
    /// sessions may go on after that.
    async fn run_until_signal(&mut self, signals: &mut EndSignals, mut reload: Signal, drain: &Drain) -> Duration {
        let end = loop {
            let request = tokio::select! {
                biased;
                end = signals.first() => break end,
                () = self.sockets.rebind_due() => {
                    self.sockets.rebind(&self.running.live.in_force(), drain);
                    continue;
                }
                Some(()) = reload.recv() => None,
                Some(request) = self.requests.recv() => Some(request),
                prepared = self.announced.next(&self.running.live) => {
                    self.apply_announced(prepared, drain);
                    continue;
                }
            };
            service_manager::reloading();
            let by = request.as_ref().map_or("SIGHUP", |request| &request.by).to_owned();
            let texts = request.as_ref().and_then(|request| request.texts.clone());
            let prepared = tokio::select! {
                biased;
                end = signals.first() => break end, // a file system or a store may not answer; nothing has changed yet
                prepared = self.prepare(texts) => prepared,
            };
            let changed = self.finish_reload(&by, prepared, drain);
            service_manager::ready(&self.status());
            if let Some(request) = request {
                let _ = request.answer.send(changed); // fails if the client is gone
            }
        };
        self.begin_shutdown();
        if end == End::Cut {
            return Duration::ZERO;
        }
        let runtime = self.running.live.plan().runtime;
        let [delay, timeout] = [runtime.drain_delay, runtime.drain_timeout].map(format_duration);
        tracing::info!(delay, timeout, "draining");
        let mut delay = pin!(sleep(runtime.drain_delay));
        loop {
            tokio::select! {
                () = signals.cut_requested() => return Duration::ZERO,
                () = &mut delay => return runtime.drain_timeout,
                () = self.sockets.rebind_due() => self.sockets.rebind(&self.running.live.in_force(), drain),
            }
        }
    }

    /// Begins the end of the process: `/ready` fails from now on, and nothing is reloaded.
    fn begin_shutdown(&mut self) {
        service_manager::stopping();
        self.requests.close();
        while self.requests.try_recv().is_ok() {} // dropping a request answers it: the process is about to end
        self.watch(None);
        self.admin.is_draining.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_process_ends_when_a_worker_is_lost() {
        let text = "[runtime]\nworkers = 2\n[admin]\nsocket = \"off\"\n[log]\naccess = \"off\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\n\
                    pool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]";
        let loaded = crate::config::read("test.toml", text).ok().unwrap();
        let (source, remote) = (Rc::default(), Arc::default());
        let (app, drain) = open_first(vec![loaded.plan.into()], &source, &remote).unwrap();
        drop(drain.worker_handle().shutdown_guard());
        let ended = app.run(Signals::new().unwrap(), drain).await;
        assert!(matches!(ended, Err(Failure::WorkersGone)), "{ended:?}");
    }
}
