//! The start: opens everything for the first plan for which that is possible.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::thread::available_parallelism;
use std::time::SystemTime;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::announced::{Announced, log_refused, with_announced};
use super::background::{event_streams_max, spawn_tasks};
use super::descriptor_budget::DescriptorBudget;
use super::failure::{cannot_use_state_dir, system};
use super::fixed_settings::FixedSettings;
use super::listen_sockets::{ListenSockets, NewlyBound};
use super::listener_tls;
use super::remote::FirstPlan;
use super::{App, ConfigSource, Failure, Running};
use crate::account::access_log::{self, AccessLog, AccessLogWriter};
use crate::account::{Ledger, Metrics};
use crate::addr::ListenAddr;
use crate::admin::{self, Admin, AdminEndpoint, ApiAccess};
use crate::clones::CloneSupervisor;
use crate::descriptors::raise_limit;
use crate::drain::Drain;
use crate::error::chain;
use crate::health::HealthMonitor;
use crate::listen::{PassedSockets, listen_alone};
use crate::live::{Live, LiveTls};
use crate::plan::{Announcement, Plan, RemoteTexts};
use crate::reload::Reloader;
use crate::remote::{RefusedBy, RemoteConfig};
use crate::sniff::HelloMemory;
use crate::state_dir::StateDir;
use crate::worker::{self, Heartbeat, ListenSocket, WorkerSetup};

/// Tries the plans in this order, until everything can be opened for one of them. There is at least one plan. The last
/// one is made from the file alone, without the texts of a store.
///
/// # Errors
/// Why the last plan has failed.
pub(super) fn open_first(
    plans: Vec<FirstPlan>,
    source: &Rc<ConfigSource>,
    remote: &Arc<RemoteConfig>,
) -> Result<(App, Drain), Failure> {
    let mut plans = plans.into_iter().peekable();
    loop {
        let FirstPlan { plan, texts, is_kept } = plans.next().expect("there is a plan");
        let awaited = plan.why_not_ready();
        match open(plan, Rc::clone(source), Arc::clone(remote)) {
            Ok(opened) => {
                log_origin(texts.as_deref(), is_kept, awaited);
                if let Some(texts) = texts {
                    remote.start_with(&texts);
                }
                return Ok(opened);
            }
            Err(failure) if plans.peek().is_some() => {
                tracing::error!(is_kept, error = %chain(&failure), "the configuration of the store cannot be put in force");
                if !is_kept {
                    remote.refuse(&failure.for_store(), RefusedBy::Machine);
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Logs where the first configuration is from, if it is from a store. Otherwise warns of what is awaited, if anything.
fn log_origin(texts: Option<&RemoteTexts>, is_kept: bool, awaited: Option<String>) {
    if let Some(texts) = texts {
        let (from, revision) = (&texts.from, texts.version().revision);
        match is_kept {
            false => tracing::info!(from, revision, "started with the configuration of the store"),
            true => {
                tracing::warn!(
                    from,
                    revision,
                    "started with the configuration that was in force last, from `state_dir`"
                );
            }
        }
    } else if let Some(awaited) = awaited {
        tracing::warn!("waiting for {awaited}: nothing is served until then");
    }
}

/// Opens everything; an error leaves nothing open. The order matters: first `state_dir` is locked and the addresses are
/// bound, then the file descriptors that are left are divided, then connections are accepted.
fn open(plan: Plan, source: Rc<ConfigSource>, remote: Arc<RemoteConfig>) -> Result<(App, Drain), Failure> {
    let limit = raise_limit().map_err(system("cannot read the limit of open files"))?;
    let workers = plan.runtime.workers.unwrap_or_else(cores);
    let state = open_state(&plan)?;
    let tls = listener_tls::load_first(&plan)?;
    let metrics = Arc::new(Metrics::new());
    let (sockets, worker_sockets) = new_sockets(&plan, workers, &metrics);
    let (bound, endpoints) = bind(&plan, &sockets)?;
    let (log, log_writer) = start_log(&plan, &metrics)?;
    let budget = DescriptorBudget::new(limit, workers, bound.len())?;
    let shares = budget.divide(&plan, bound.len());
    let drain = Drain::default();
    let ledger = || Ledger::new(Arc::clone(&metrics), log.clone());
    let (ledgers, heartbeats) = start_workers(worker_sockets, shares.pipes / workers, &drain, ledger)?;
    let listening = sockets.listen(bound)?;
    let fixed = FixedSettings::new(&plan);
    let addresses = sockets.addresses(&plan, &listening);
    let (live, announced) = put_in_force(plan, addresses, tls, state.as_ref())?;
    let (reloader, requests) = Reloader::new();
    let admin = Arc::new(Admin {
        metrics: Arc::clone(&metrics),
        limits: Arc::clone(&sockets.limits),
        live: Arc::clone(&live),
        is_draining: AtomicBool::new(false),
        access: ApiAccess::new(),
        ledgers,
        history: Arc::default(),
        events: admin::Events::new(event_streams_max(shares.admin)),
        reloader,
        renewals: Arc::default(),
        unsaved: state.as_ref().map(StateDir::unsaved),
        started: SystemTime::now(),
        configuration: source.path(),
        remote: Arc::clone(&remote),
    });
    let health = HealthMonitor::new(metrics, Arc::clone(&live));
    let mut app = App {
        clones: CloneSupervisor::new(Arc::clone(&live), health.single_checks()),
        health,
        announced,
        running: Running::new(&endpoints, Arc::clone(&live)),
        state: state.map(|state| state.keep(live, remote.subscribe_texts())),
        tasks: spawn_tasks(&admin, &sockets, heartbeats, endpoints, shares.admin),
        source,
        sockets,
        budget,
        fixed,
        watching: None,
        remote,
        following: None,
        admin,
        requests,
        log,
        log_writer,
    };
    app.begin(listening, &drain);
    Ok((app, drain))
}

/// The sockets of the listeners, none of which this process has bound yet, and for each worker the channel over which
/// it gets its own sockets.
fn new_sockets(
    plan: &Plan,
    workers: usize,
    metrics: &Arc<Metrics>,
) -> (ListenSockets, Vec<UnboundedReceiver<ListenSocket>>) {
    let (to_workers, worker_sockets): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
    let memory = HelloMemory::new(plan.runtime.hello_memory_bytes);
    let sockets = ListenSockets::new(to_workers, Arc::clone(metrics), memory, PassedSockets::inherited());
    (sockets, worker_sockets)
}

/// Opens `state_dir`, if there is one.
fn open_state(plan: &Plan) -> Result<Option<StateDir>, Failure> {
    let state = plan.state_dir.as_deref().map(StateDir::open).transpose();
    let state = state.map_err(cannot_use_state_dir)?;
    for unsaved in state.iter().flat_map(|state| state.unsaved().list()) {
        tracing::warn!("`state_dir` is read, but changes cannot be saved, and a restart would forget them: {unsaved}");
    }
    Ok(state)
}

/// Starts to write the access log.
fn start_log(plan: &Plan, metrics: &Metrics) -> Result<(AccessLog, AccessLogWriter), Failure> {
    let log = access_log::start(&plan.log.access, plan.log.format, metrics.lines_dropped());
    let (log, writer) = log.map_err(Failure::access_log)?;
    log.set_logs_empty_sessions(plan.log.level >= tracing::Level::DEBUG);
    Ok((log, writer))
}

/// Puts the first plan in force, with what is remembered in `state_dir`.
fn put_in_force(
    plan: Plan,
    addresses: Vec<Vec<ListenAddr>>,
    tls: LiveTls,
    state: Option<&StateDir>,
) -> Result<(Arc<Live>, Announced), Failure> {
    let remembered = state.map(StateDir::remembered).transpose();
    let remembered = remembered.map_err(cannot_use_state_dir)?.unwrap_or_default();
    let announced: Arc<[Announcement]> = remembered.announced.into_iter().map(Into::into).collect();
    // `file_plan`: the plan without announced routes; `None`: no listener accepts any.
    let (plan, file_plan) = with_announced(plan, &announced);
    if let Some(file_plan) = &file_plan {
        log_refused(file_plan, &plan);
    }
    let live = Live::with_known_primaries(plan, addresses, remembered.primaries).with_tls(tls);
    live.restore_listed(remembered.servers);
    live.restore_added(remembered.added_servers, SystemTime::now());
    let live = Arc::new(live);
    let announced = Announced::follow(&live, file_plan, announced);
    Ok((live, announced))
}

/// The number of cores that this process may use.
fn cores() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Binds every address of the plan, the admin port included. On an error, none that this process has bound stays bound.
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

/// The ledgers and the heartbeats of the workers.
type StartedWorkers = (Vec<Arc<Ledger>>, Vec<Weak<Heartbeat>>);

/// Starts the workers, each with a ledger and a heartbeat of its own. `pipes`: how many each may have at once.
fn start_workers(
    sockets: Vec<UnboundedReceiver<ListenSocket>>,
    pipes: usize,
    drain: &Drain,
    ledger: impl Fn() -> Ledger,
) -> Result<StartedWorkers, Failure> {
    let start = |(number, sockets)| {
        let (ledger, heartbeat) = (Arc::new(ledger()), Arc::default());
        let watched = Arc::downgrade(&heartbeat);
        let setup = WorkerSetup {
            number,
            sockets,
            pipes,
            ledger: Arc::clone(&ledger),
            heartbeat,
            handle: drain.worker_handle(),
        };
        worker::start(setup).map_err(system("cannot start a worker"))?;
        Ok((ledger, watched))
    };
    let started: Result<Vec<_>, Failure> = sockets.into_iter().enumerate().map(start).collect();
    Ok(started?.into_iter().unzip())
}
