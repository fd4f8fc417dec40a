//! The composition root: binds, spawns, listens to signals, reloads, and ends it all.

mod allocator;
mod failure;
mod files;
mod reckoning;
mod gates;
mod signals;
mod watch;
mod reload;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::account::access_log::{self, AccessLog, AccessLogWriter};
use crate::account::{Ledger, Metrics};
use crate::addr::ListenAddr;
use crate::admin::{self, Admin, AdminEndpoint};
use crate::descriptors::raise_limit;
use crate::drain::Drain;
use crate::health::HealthMonitor;
use crate::listen::listen_alone;
use crate::live::Live;
use crate::plan::{AdminPlan, LogPlan, Plan};
use crate::reload::{Reloader, Request};
use crate::sever;
use crate::sniff::HelloMemory;
use crate::worker::{self, ListenSocket, WorkerSetup};
pub use failure::Failure;
use failure::system;
pub use files::exposed;
use gates::{Gates, NewlyBound};
use reckoning::Reckoning;
use signals::{End, EndSignals, Signals};

/// Announcements of addresses have a target of their own, so that they are told at every log level.
pub const ANNOUNCE: &str = "acequia::announce";

/// How often it is looked whether accepting goes on everywhere.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// Takes other settings of the diagnostic log in.
pub type Relog = Box<dyn Fn(&LogPlan)>;

/// Where a plan comes from, and who else must know when there is another.
#[derive(Default)]
pub struct Origin {
    /// The file, to be read again; `None`: there is none, and no reload.
    pub file: Option<PathBuf>,
    /// What the plan was read from there.
    pub text: String,
    /// Told of the diagnostic log's settings when they change.
    pub relog: Option<Relog>,
}

impl Origin {
    /// The file, from the root: whoever asks need not be where the process was started.
    fn path(&self) -> Option<PathBuf> {
        std::path::absolute(self.file.as_deref()?).ok()
    }
}

/// Runs a plan until a signal ends it. `started` hears the addresses as soon as clients are let in.
///
/// # Errors
/// What it could not get at the start, or lost while it ran.
pub fn run(plan: Plan, origin: Origin, started: impl FnOnce(&Running)) -> Result<(), Failure> {
    allocator::map_large_blocks();
    let control = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("cannot start an event loop (epoll, eventfd)"))?;
    let opened = {
        let _within = control.enter(); // and not inside of it: what fails here drops runtimes of workers
        Signals::new()
            .map_err(system("cannot listen to signals"))
            .and_then(|signals| Ok((signals, open(plan, origin)?)))
    };
    let ended = opened.and_then(|(signals, (house, drain))| {
        started(&house.running);
        control.block_on(house.live_until(signals, drain))
    });
    // A resolver is asked in a thread of its own, which nobody can interrupt: it must not keep the process.
    control.shutdown_background();
    ended
}

/// A listener's name and the addresses it really has.
pub type Addresses = (Arc<str>, Vec<ListenAddr>);

/// What is open when it starts.
#[derive(Clone, Debug)]
pub struct Running {
    /// In the order of the plan.
    pub listeners: Vec<Addresses>,
    /// The admin port's.
    pub admin: Option<ListenAddr>,
    /// The plan in force.
    pub live: Arc<Live>,
}

/// Everything that runs beside the workers.
struct House {
    running: Running,
    origin: Origin,
    gates: Gates,
    health: HealthMonitor,
    reckoning: Reckoning,
    started: Started,
    /// Reloads when the file changes.
    watching: Option<AbortOnDropHandle<()>>,
    admin: Arc<Admin>,
    requests: Receiver<Request>,
    log: AccessLog,
    log_writer: AccessLogWriter,
    /// The admin port and what else runs beside; dropping it ends them.
    tasks: JoinSet<()>,
}

/// What cannot be changed while we run.
struct Started {
    workers: Option<usize>,
    admin: AdminPlan,
}

impl Started {
    fn with(plan: &Plan) -> Self {
        Self {
            workers: plan.runtime.workers,
            admin: plan.admin.clone(),
        }
    }
}

/// Opens everything, in an order that leaves nothing half up: bind, then reckon what the descriptors allow, then let
/// clients in.
fn open(plan: Plan, origin: Origin) -> Result<(House, Drain), Failure> {
    let limit = raise_limit().map_err(system("cannot read the limit of open files"))?;
    let workers = plan.runtime.workers.unwrap_or_else(cores);
    files::look(&plan)?;
    let metrics = Arc::new(Metrics::new());
    metrics.configure_pools(plan.pools.iter().map(|pool| pool.pool.name()));
    let memory = HelloMemory::new(plan.runtime.hello_bytes_max);
    let (to_workers, gates_of_workers): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
    let mut gates = Gates::new(to_workers, Arc::clone(&metrics), memory);
    let (bound, endpoints) = bind(&plan, &gates)?;
    let log = access_log::start(&plan.log.access, plan.log.format, metrics.lines_dropped());
    let (log, log_writer) = log.map_err(Failure::AccessLog)?;
    log.publish_logging_empty_sessions(plan.log.level >= tracing::Level::DEBUG);
    let reckoning = Reckoning::new(limit, workers, bound.len())?;
    let budget = reckoning.budget(&plan, bound.len());
    gates.limits.resize_process(budget.sessions);
    let started = Started::with(&plan);
    let live = Arc::new(Live::new(plan));
    let drain = Drain::default();
    let ledgers = employ(gates_of_workers, budget.pipes / workers, &drain, || {
        Ledger::new(Arc::clone(&metrics), log.clone())
    })?;
    let listening = gates.listen(bound)?;
    let listeners = gates.open(&live.plan(), listening, &drain);
    let (reloader, requests) = Reloader::new();
    let admin = Arc::new(Admin {
        metrics: Arc::clone(&metrics),
        limits: Arc::clone(&gates.limits),
        live: Arc::clone(&live),
        is_draining: AtomicBool::new(false),
        ledgers,
        reloader,
        started: std::time::SystemTime::now(),
        configuration: origin.path(),
        addresses: ArcSwap::from_pointee(listeners.clone()),
    });
    let admin_address = endpoints.iter().find_map(AdminEndpoint::address);
    let health = HealthMonitor::new(metrics, Arc::clone(live.roster()));
    health.set_limits(budget.checks, budget.lookups);
    let tasks = beside(&admin, &gates.hello_memory, endpoints, budget.admin);
    let running = Running {
        listeners,
        admin: admin_address,
        live,
    };
    let mut house = House {
        running,
        origin,
        gates,
        health,
        reckoning,
        started,
        watching: None,
        tasks,
        admin,
        requests,
        log,
        log_writer,
    };
    let text = std::mem::take(&mut house.origin.text);
    house.watch(house.running.live.plan().runtime.watch.then_some(text));
    Ok((house, drain))
}

/// What runs beside the workers.
fn beside(
    admin: &Arc<Admin>,
    memory: &Arc<HelloMemory>,
    endpoints: Vec<AdminEndpoint>,
    visitors_max: usize,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&admin.metrics).run_upkeep());
    tasks.spawn(tell_of_calm(Arc::clone(&admin.metrics), Arc::clone(memory)));
    tasks.spawn(sever::tend(Arc::clone(&admin.live), admin.ledgers.clone()));
    for endpoint in endpoints {
        // To each its half: a crowd at the one keeps nobody from the other.
        tasks.spawn(admin::serve(endpoint, Arc::clone(admin), (visitors_max / 2).max(1)));
    }
    tasks
}

/// Cores this process may use.
fn cores() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Binds every address there is to bind; on any failure none stays bound.
fn bind(plan: &Plan, gates: &Gates) -> Result<(NewlyBound, Vec<AdminEndpoint>), Failure> {
    let mut failed = Vec::new();
    let bound = gates.bind(plan, &mut failed);
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

/// Starts the workers, each with a ledger of its own.
fn employ(
    gates: Vec<UnboundedReceiver<ListenSocket>>,
    pipes: usize,
    drain: &Drain,
    ledger: impl Fn() -> Ledger,
) -> Result<Vec<Arc<Ledger>>, Failure> {
    let start = |(number, gates)| {
        let ledger = Arc::new(ledger());
        let setup = WorkerSetup {
            number,
            sockets: gates,
            pipes,
            ledger: Arc::clone(&ledger),
            handle: drain.worker_handle(),
        };
        worker::start(setup).map_err(system("cannot start a worker"))?;
        Ok(ledger)
    };
    gates.into_iter().enumerate().map(start).collect()
}

impl House {
    /// Lives until a signal comes, then drains. When a worker is lost it cuts what is left, for whoever starts us
    /// anew to do so at once.
    async fn live_until(mut self, signals: Signals, drain: Drain) -> Result<(), Failure> {
        let Signals {
            reopen,
            reload,
            end: mut signals,
        } = signals;
        self.tasks.spawn(keep_reopening(self.log.clone(), reopen));
        self.health.adopt(&self.running.live.plan()).await;
        let told = tokio::select! {
            grace = self.until_told(&mut signals, reload, &drain) => Ok(grace),
            () = drain.worker_lost() => Err(Failure::WorkersGone),
        };
        let grace = *told.as_ref().unwrap_or(&Duration::ZERO);
        let was_cut = drain.finish(grace, signals.hurry()).await;
        tracing::info!(was_cut, "drained");
        self.tasks.shutdown().await;
        let Self {
            log,
            log_writer,
            admin,
            health,
            ..
        } = self;
        drop((log, admin, health)); // with the last ledger goes the last entrance to the log
        if !log_writer.finish() {
            tracing::warn!("nobody reads the access log: its last lines are lost");
        }
        told.map(drop)
    }

    /// Reloads whenever that is asked for, until a signal comes, and for the delay after it. Returns how long sessions
    /// may go on.
    async fn until_told(&mut self, signals: &mut EndSignals, mut reload: Signal, drain: &Drain) -> Duration {
        let end = loop {
            let request = tokio::select! {
                biased;
                end = signals.come() => break end,
                Some(()) = reload.recv() => None,
                Some(request) = self.requests.recv() => Some(request),
            };
            let by = request.as_ref().map_or("SIGHUP", |request| &request.by).to_owned();
            let prepared = tokio::select! {
                biased;
                end = signals.come() => break end, // a file may never be read to its end; nothing has changed then
                prepared = self.prepare() => prepared,
            };
            let changed = self.reload(&by, prepared, drain).await;
            if let Some(request) = request {
                let _ = request.answer.send(changed); // whoever asked may be gone
            }
        };
        self.begin_to_end();
        if end == End::Cut {
            return Duration::ZERO;
        }
        let runtime = self.running.live.plan().runtime;
        tracing::info!(delay = ?runtime.drain_delay, timeout = ?runtime.drain_timeout, "draining");
        tokio::select! {
            () = signals.hurry() => Duration::ZERO,
            () = sleep(runtime.drain_delay) => runtime.drain_timeout,
        }
    }
}

/// The log goes on in a new file whenever that is asked for, also while sessions end.
async fn keep_reopening(log: AccessLog, mut asked: Signal) {
    while asked.recv().await.is_some() {
        log.reopen();
    }
}

/// Tells the log where accepting goes on again, and when `hello_memory` is enough again.
async fn tell_of_calm(metrics: Arc<Metrics>, memory: Arc<HelloMemory>) {
    let mut ticks = interval(CALM_INTERVAL);
    loop {
        ticks.tick().await;
        for listener in metrics.listeners().iter().filter(|listener| listener.take_pause_end()) {
            tracing::info!(listener = %listener.name(), "accepting again");
        }
        if let Some(ended) = memory.take_evictions() {
            tracing::info!(ended, "`hello_memory` is enough again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_worker_ends_it_all() {
        let text = "[runtime]\nworkers = 2\n[admin]\nsocket = \"off\"\n[log]\naccess = \"off\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\n\
                    pool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]";
        let loaded = crate::config::read("test.toml", text).ok().unwrap();
        let (house, drain) = open(loaded.plan, Origin::default()).unwrap();
        drop(drain.worker_handle().shutdown_guard());
        let ended = house.live_until(Signals::new().unwrap(), drain).await;
        assert!(matches!(ended, Err(Failure::WorkersGone)), "{ended:?}");
    }
}
