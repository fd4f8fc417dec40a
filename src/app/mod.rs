//! The composition root: binds, spawns tasks, handles signals, reloads, and ends the process.

mod allocator;
mod failure;
mod files;
mod fixed_settings;
mod acme;
mod pool_tls;
mod listener_tls;
mod recoveries;
mod descriptor_budget;
mod listen_sockets;
mod service_manager;
mod background;
mod signals;
mod watch;
mod retirement;
mod announced;
mod reload;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime};

use tokio::runtime;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::account::access_log::{self, AccessLog, AccessLogWriter};
use crate::account::{Ledger, Metrics};
use crate::addr::ListenAddr;
use crate::admin::{self, Admin, AdminEndpoint};
use crate::clones::CloneSupervisor;
use crate::config::report::counted;
use crate::descriptors::raise_limit;
use crate::drain::Drain;
use crate::health::HealthMonitor;
use crate::listen::{PassedSockets, listen_alone};
use crate::live::{Live, LiveTls};
use crate::plan::{LogPlan, Plan};
use crate::reload::{Reloader, Request};
use crate::sniff::HelloMemory;
use crate::state_dir::{StateDir, StateKeeper};
use crate::worker::{self, Heartbeat, ListenSocket, WorkerSetup};
use announced::Announced;
use background::{reopen_on_signal, spawn_tasks, streams_of};
use descriptor_budget::DescriptorBudget;
pub use failure::Failure;
use failure::system;
pub use files::suspect;
use fixed_settings::FixedSettings;
use listen_sockets::{ListenSockets, NewlyBound, NewlyListening};
pub use listener_tls::{load_tls, tls_warnings};
use signals::{End, EndSignals, Signals};

/// The log target of the messages that tell the addresses. They are logged at every level.
pub const ANNOUNCE: &str = "acequia::announce";

/// Applies new settings to the diagnostic log.
pub type ReconfigureLog = Box<dyn Fn(&LogPlan)>;

/// Where a plan comes from, and what else has to follow it.
#[derive(Default)]
pub struct ConfigSource {
    /// The file that a reload reads; `None`: there is none, and no reload.
    pub file: Option<PathBuf>,
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

/// Runs a plan until a signal ends it. Calls `started` as soon as connections are accepted.
///
/// # Errors
/// What it could not get at the start, or lost while it ran.
pub fn run(plan: Plan, source: ConfigSource, started: impl FnOnce(&Running)) -> Result<(), Failure> {
    allocator::map_large_blocks();
    let control = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("cannot start an event loop (epoll, eventfd)"))?;
    let opened = {
        // In the runtime's context, but not in `block_on`: an error here drops the runtimes of workers.
        let _within = control.enter();
        Signals::new()
            .map_err(system("cannot listen to signals"))
            .and_then(|signals| Ok((signals, open(plan, source)?)))
    };
    let ended = opened.and_then(|(signals, (app, drain))| {
        started(&app.running);
        service_manager::ready(&app.status());
        control.block_on(app.run(signals, drain))
    });
    // Lookups of host names run in threads that cannot be interrupted. They must not delay the end of the process.
    control.shutdown_background();
    ended
}

/// What is open when the process has started.
#[derive(Clone, Debug)]
pub struct Running {
    /// The address of the admin port.
    pub admin: Option<ListenAddr>,
    /// What is in force, with the addresses of the listeners.
    pub live: Arc<Live>,
}

/// Everything that runs beside the workers.
struct App {
    running: Running,
    source: ConfigSource,
    sockets: ListenSockets,
    health: HealthMonitor,
    clones: CloneSupervisor,
    budget: DescriptorBudget,
    fixed: FixedSettings,
    /// Reloads when the file changes.
    watching: Option<AbortOnDropHandle<()>>,
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

/// Opens everything. An error leaves nothing open: first the addresses are bound, then the file descriptors are divided,
/// then connections are accepted.
fn open(plan: Plan, source: ConfigSource) -> Result<(App, Drain), Failure> {
    let limit = raise_limit().map_err(system("cannot read the limit of open files"))?;
    let workers = plan.runtime.workers.unwrap_or_else(cores);
    let tls = listener_tls::load_first(&plan)?;
    let metrics = Arc::new(Metrics::new());
    let memory = HelloMemory::new(plan.runtime.hello_bytes_max);
    let (to_workers, of_workers): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
    let sockets = ListenSockets::new(to_workers, Arc::clone(&metrics), memory, PassedSockets::inherited());
    let (bound, endpoints) = bind(&plan, &sockets)?;
    let (log, log_writer) = start_log(&plan, &metrics)?;
    let budget = DescriptorBudget::new(limit, workers, bound.len())?;
    let shares = budget.divide(&plan, bound.len());
    let drain = Drain::default();
    let ledger = || Ledger::new(Arc::clone(&metrics), log.clone());
    let started = start_workers(of_workers, shares.pipes / workers, &drain, ledger)?;
    let (ledgers, heartbeats): (Vec<_>, Vec<_>) = started.into_iter().unzip();
    let listening = sockets.listen(bound)?;
    let addresses = sockets.addresses(&plan, &listening);
    let fixed = FixedSettings::of(&plan);
    let (live, state) = put_in_force(plan, addresses, tls)?;
    let (reloader, requests) = Reloader::new();
    let admin = Arc::new(Admin {
        metrics: Arc::clone(&metrics),
        limits: Arc::clone(&sockets.limits),
        live: Arc::clone(&live),
        is_draining: AtomicBool::new(false),
        is_token_unreadable: AtomicBool::new(false),
        ledgers,
        history: Arc::default(),
        events: admin::Events::new(streams_of(shares.admin)),
        reloader,
        renewals: Arc::default(),
        started: SystemTime::now(),
        configuration: source.path(),
    });
    let admin_address = endpoints.iter().find_map(AdminEndpoint::address);
    let health = HealthMonitor::new(metrics, Arc::clone(&live));
    let mut app = App {
        clones: CloneSupervisor::new(Arc::clone(&live), health.single_checks()),
        health,
        state: state.map(|state| state.keep(Arc::clone(&live))),
        announced: Announced::follow(&live),
        tasks: spawn_tasks(&admin, &sockets, heartbeats, endpoints, shares.admin),
        running: Running {
            admin: admin_address,
            live,
        },
        source,
        sockets,
        budget,
        fixed,
        watching: None,
        admin,
        requests,
        log,
        log_writer,
    };
    app.begin(listening, &drain);
    Ok((app, drain))
}

/// Starts to write the access log.
fn start_log(plan: &Plan, metrics: &Metrics) -> Result<(AccessLog, AccessLogWriter), Failure> {
    let log = access_log::start(&plan.log.access, plan.log.format, metrics.lines_dropped());
    let (log, writer) = log.map_err(Failure::AccessLog)?;
    log.publish_logging_empty_sessions(plan.log.level >= tracing::Level::DEBUG);
    Ok((log, writer))
}

/// Puts the first plan in force, with what is remembered in `state_dir`.
fn put_in_force(
    plan: Plan,
    addresses: Vec<Vec<ListenAddr>>,
    tls: LiveTls,
) -> Result<(Arc<Live>, Option<StateDir>), Failure> {
    let state = plan.state_dir.as_deref().map(StateDir::open).transpose();
    let state = state.map_err(system("cannot use `state_dir`"))?;
    let primaries = state.as_ref().map(StateDir::primaries).unwrap_or_default();
    let live = Live::with_known_primaries(plan, addresses, primaries).with_tls(tls);
    live.restore_listed(state.as_ref().map(StateDir::servers).unwrap_or_default());
    let added = state.as_ref().map(StateDir::added_servers).unwrap_or_default();
    live.restore_added(added, SystemTime::now());
    Ok((Arc::new(live), state))
}

/// The number of cores that this process may use.
fn cores() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Binds every address of the plan, the admin port included. On an error none stays bound.
fn bind(plan: &Plan, sockets: &ListenSockets) -> Result<(NewlyBound, Vec<AdminEndpoint>), Failure> {
    let mut failed = Vec::new();
    let bound = sockets.bind(plan, &mut failed);
    let admin = plan.admin.bind.and_then(|address| {
        let socket = listen_alone(address);
        socket.map_err(|error| failed.push(("[admin]".to_owned(), error))).ok()
    });
    if !failed.is_empty() {
        return Err(Failure::Bind(failed));
    }
    let socket = admin::bind(&plan.admin.socket).map_err(system("cannot open the Unix socket of [admin]"))?;
    let endpoints = admin
        .map(AdminEndpoint::Tcp)
        .into_iter()
        .chain(socket.map(AdminEndpoint::Unix));
    Ok((bound, endpoints.collect()))
}

/// The ledger and the heartbeat of a worker.
type StartedWorker = (Arc<Ledger>, Weak<Heartbeat>);

/// Starts the workers, each with a ledger and a heartbeat of its own.
fn start_workers(
    sockets: Vec<UnboundedReceiver<ListenSocket>>,
    pipes: usize,
    drain: &Drain,
    ledger: impl Fn() -> Ledger,
) -> Result<Vec<StartedWorker>, Failure> {
    let start = |(number, sockets)| {
        let (ledger, heartbeat) = (Arc::new(ledger()), Arc::default());
        let shown = Arc::downgrade(&heartbeat);
        let setup = WorkerSetup {
            number,
            sockets,
            pipes,
            ledger: Arc::clone(&ledger),
            heartbeat,
            handle: drain.worker_handle(),
        };
        worker::start(setup).map_err(system("cannot start a worker"))?;
        Ok((ledger, shown))
    };
    sockets.into_iter().enumerate().map(start).collect()
}

impl App {
    /// Follows the first plan, and the file if that is configured.
    fn begin(&mut self, listening: NewlyListening, drain: &Drain) {
        let in_force = self.running.live.in_force();
        self.follow(&in_force, listening, drain);
        let text = std::mem::take(&mut self.source.text);
        self.watch(in_force.plan.runtime.watch.then_some(text));
    }

    /// What `systemctl status` shows.
    fn status(&self) -> String {
        let plan = self.running.live.plan();
        let (listeners, pools) = (plan.listeners.len(), plan.pools.len());
        format!("{}, {}", counted(listeners, "listener"), counted(pools, "pool"))
    }

    /// Runs until a signal comes, then drains. If a worker is lost it closes all sessions, so that a supervisor can restart
    /// the process at once.
    async fn run(mut self, signals: Signals, drain: Drain) -> Result<(), Failure> {
        let Signals {
            reopen,
            reload,
            end: mut signals,
        } = signals;
        self.tasks.spawn(reopen_on_signal(self.log.clone(), reopen));
        self.tasks.spawn(self.health.run());
        self.tasks.spawn(self.clones.run());
        let ended = tokio::select! {
            grace = self.run_until_signal(&mut signals, reload, &drain) => Ok(grace),
            () = drain.worker_lost() => Err(Failure::WorkersGone),
        };
        let grace = *ended.as_ref().unwrap_or(&Duration::ZERO);
        let was_cut = drain.finish(grace, signals.cut_requested()).await;
        tracing::info!(was_cut, "drained");
        self.clones.stop(signals.cut_requested()).await;
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

    /// Reloads on every request, until a signal comes, and waits for the drain delay after it. Returns how long sessions
    /// may go on.
    async fn run_until_signal(&mut self, signals: &mut EndSignals, mut reload: Signal, drain: &Drain) -> Duration {
        let end = loop {
            let request = tokio::select! {
                biased;
                end = signals.first() => break end,
                Some(()) = reload.recv() => None,
                Some(request) = self.requests.recv() => Some(request),
                prepared = self.announced.next(&self.running.live) => {
                    self.apply_announced(prepared, drain);
                    continue;
                }
            };
            service_manager::reloading();
            let by = request.as_ref().map_or("SIGHUP", |request| &request.by).to_owned();
            let prepared = tokio::select! {
                biased;
                end = signals.first() => break end, // reading a file may never end; nothing has changed yet
                prepared = self.prepare() => prepared,
            };
            let changed = self.reload(&by, prepared, drain);
            service_manager::ready(&self.status());
            if let Some(request) = request {
                let _ = request.answer.send(changed); // fails if the client is gone
            }
        };
        self.begin_to_end();
        if end == End::Cut {
            return Duration::ZERO;
        }
        let runtime = self.running.live.plan().runtime;
        tracing::info!(delay = ?runtime.drain_delay, timeout = ?runtime.drain_timeout, "draining");
        tokio::select! {
            () = signals.cut_requested() => Duration::ZERO,
            () = sleep(runtime.drain_delay) => runtime.drain_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loss_of_a_worker_ends_the_process() {
        let text = "[runtime]\nworkers = 2\n[admin]\nsocket = \"off\"\n[log]\naccess = \"off\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\n\
                    pool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]";
        let loaded = crate::config::read("test.toml", text).ok().unwrap();
        let (app, drain) = open(loaded.plan, ConfigSource::default()).unwrap();
        drop(drain.worker_handle().shutdown_guard());
        let ended = app.run(Signals::new().unwrap(), drain).await;
        assert!(matches!(ended, Err(Failure::WorkersGone)), "{ended:?}");
    }
}
