//! The composition root: binds, spawns, listens to signals, and ends it all.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::account::access_log::{self, AccessLog, AccessLogWriter};
use crate::account::{Ledger, ListenerSeries, Metrics};
use crate::addr::ListenAddr;
use crate::admin::{self, Admin};
use crate::descriptors::{Budget, open_now, raise_limit};
use crate::drain::Drain;
use crate::listen::{BindError, Bound, Places};
use crate::live::Live;
use crate::plan::Plan;
use crate::probe::Checks;
use crate::worker::{self, Gate, Share};

/// Announcements of addresses have a target of their own, so that they are told at every log level.
pub const ANNOUNCE: &str = "acequia::announce";

/// Descriptors of a worker's runtime: its epoll, what wakes it, its share of the signals.
const RUNTIME_DESCRIPTORS: usize = 4;

/// Why the process cannot run, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Addresses that cannot be bound, all of them; none is held.
    #[error("{}", .0.iter().map(|(name, error)| format!("{name}: {error}")).collect::<Vec<_>>().join("\n"))]
    Bind(Vec<(String, BindError)>),
    /// The access log cannot be opened.
    #[error("cannot write the access log: {0}; see `access` in [log]")]
    AccessLog(#[source] io::Error),
    /// Something else the system would not give.
    #[error("{what}: {cause}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// Why it could not.
        #[source]
        cause: io::Error,
    },
    /// A worker, or the part of it that keeps a listener, is gone though nobody told it to end.
    #[error("a worker has ended by itself: this is a fault of acequia")]
    WorkersGone,
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |cause| Failure::System { what, cause }
}

/// Runs a plan until a signal ends it. `started` hears the addresses as soon as clients are let in.
///
/// # Errors
/// What it could not get at the start, or lost while it ran.
pub fn run(plan: Plan, started: impl FnOnce(&Running)) -> Result<(), Failure> {
    let control = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("cannot start"))?;
    let opened = {
        let _within = control.enter(); // and not inside of it: what fails here drops runtimes of workers
        Signals::new()
            .map_err(system("cannot listen to signals"))
            .and_then(|signals| Ok((signals, open(plan)?)))
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

/// What is open while it runs.
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
    plan: Arc<Plan>,
    admin: Arc<Admin>,
    log: Option<(AccessLog, AccessLogWriter)>,
    /// Checks and the admin port; dropping it ends them.
    tasks: JoinSet<()>,
}

/// What is bound, and not listened on yet: either everything is or nothing.
struct Sockets {
    listeners: Vec<Vec<Bound>>,
    admin: Option<TcpListener>,
}

/// Opens everything, in an order that leaves nothing half up: bind, then reckon what the descriptors allow, then let
/// clients in.
fn open(plan: Plan) -> Result<(House, Drain), Failure> {
    let limit = raise_limit();
    let workers = plan
        .runtime
        .workers
        .unwrap_or_else(|| available_parallelism().map_or(1, NonZeroUsize::get));
    let sockets = bind(&plan)?;
    let metrics = Arc::new(Metrics::new());
    let log = access_log::start(&plan.log.access, plan.log.format, metrics.lines_dropped());
    let log = log.map_err(Failure::AccessLog)?;
    let budget = reckon(&plan, limit, workers)?;
    let live = Arc::new(Live::new(plan));
    let plan = live.plan();
    let admin = Arc::new(Admin {
        metrics: Arc::clone(&metrics),
        live: Arc::clone(&live),
        is_draining: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&metrics).tend());
    let admin_address = sockets
        .admin
        .as_ref()
        .and_then(|socket| socket.local_addr().ok())
        .map(ListenAddr::new);
    if let Some(socket) = sockets.admin {
        tasks.spawn(admin::serve(socket, Arc::clone(&admin), budget.admin));
    }
    let drain = Drain::default();
    let floor = Floor {
        live: &live,
        metrics: &metrics,
        log: log.as_ref().map(|(log, _)| log),
        drain: &drain,
    };
    let listeners = floor.employ(sockets.listeners, workers, &budget)?;
    let checks = Arc::new(Checks::new(budget.checks, Arc::clone(&metrics)));
    for pool in &plan.pools {
        tasks.spawn(Arc::clone(&checks).tend(Arc::clone(pool)));
    }
    let running = Running {
        listeners,
        admin: admin_address,
        live,
    };
    Ok((
        House {
            running,
            plan,
            admin,
            log,
            tasks,
        },
        drain,
    ))
}

/// Binds every address there is to bind; on any failure none stays bound.
fn bind(plan: &Plan) -> Result<Sockets, Failure> {
    let mut failed = Vec::new();
    let mut listeners = Vec::new();
    for listener in &plan.listeners {
        let mut bound = Vec::new();
        for address in &listener.bind {
            match Bound::new(*address, &listener.socket) {
                Ok(socket) => bound.push(socket),
                Err(error) => failed.push((format!("listener `{}`", listener.name), error)),
            }
        }
        listeners.push(bound);
    }
    let admin = plan.admin.bind.and_then(|address| match listen_alone(address) {
        Ok(socket) => Some(socket),
        Err(cause) => {
            failed.push(("[admin]".to_owned(), BindError { address, cause }));
            None
        }
    });
    if failed.is_empty() {
        Ok(Sockets { listeners, admin })
    } else {
        Err(Failure::Bind(failed))
    }
}

fn listen_alone(address: ListenAddr) -> io::Result<TcpListener> {
    let socket = std::net::TcpListener::bind(address.socket())?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// What the descriptors are kept for; a wish that cannot be met is said.
fn reckon(plan: &Plan, limit: usize, workers: usize) -> Result<Budget, Failure> {
    let open = open_now().map_err(system("cannot count open files"))? + workers * RUNTIME_DESCRIPTORS;
    let wanted = plan.runtime.max_connections;
    let budget = Budget::new(limit, open, wanted);
    if let Some(wanted) = wanted.filter(|wanted| *wanted > budget.sessions) {
        tracing::warn!(
            wanted,
            possible = budget.sessions,
            open_files = limit,
            "max_connections is more than the limit of open files allows: raise it (`ulimit -n`)"
        );
    }
    tracing::info!(sessions = budget.sessions, open_files = limit, workers, "room");
    Ok(budget)
}

/// What workers are given.
struct Floor<'a> {
    live: &'a Arc<Live>,
    metrics: &'a Arc<Metrics>,
    log: Option<&'a AccessLog>,
    drain: &'a Drain,
}

impl Floor<'_> {
    /// Listens on everything and starts the workers. Returns the listeners' addresses.
    fn employ(&self, bound: Vec<Vec<Bound>>, workers: usize, budget: &Budget) -> Result<Vec<Addresses>, Failure> {
        let plan = self.live.plan();
        let process = Arc::new(Semaphore::new(budget.sessions.min(Semaphore::MAX_PERMITS)));
        let mut gates: Vec<Vec<Gate>> = (0..workers).map(|_| Vec::new()).collect();
        let (mut series_of_all, mut addresses_of_all) = (Vec::new(), Vec::new());
        for (index, (listener, bound)) in plan.listeners.iter().zip(bound).enumerate() {
            let places = Places::new(listener.max_connections, Arc::clone(&process));
            let series = self.metrics.add_listener(&listener.name, places.clone());
            let mut addresses = Vec::new();
            for bound in bound {
                addresses.push(bound.address());
                let sockets = bound.listen(workers, listener.backlog);
                let sockets =
                    sockets.map_err(|error| Failure::Bind(vec![(format!("listener `{}`", listener.name), error)]))?;
                for (gates, socket) in gates.iter_mut().zip(sockets) {
                    let (places, series) = (places.clone(), Arc::clone(&series));
                    gates.push(Gate {
                        listener: index,
                        socket,
                        places,
                        series,
                    });
                }
            }
            series_of_all.push(series);
            addresses_of_all.push((Arc::clone(&listener.name), addresses));
        }
        for (number, gates) in gates.into_iter().enumerate() {
            let share = self.share(number, gates, &series_of_all, budget.pipes / workers);
            worker::start(share).map_err(system("cannot start a worker"))?;
        }
        Ok(addresses_of_all)
    }

    fn share(&self, number: usize, gates: Vec<Gate>, series: &[Arc<ListenerSeries>], pipes: usize) -> Share {
        let log_visits = self.live.plan().log.level >= tracing::Level::DEBUG;
        let ledger = Ledger::new(Arc::clone(self.metrics), series.to_vec(), self.log.cloned(), log_visits);
        let live = Arc::clone(self.live);
        Share {
            number,
            gates,
            pipes,
            live,
            ledger: Arc::new(ledger),
            leash: self.drain.leash(),
        }
    }
}

impl House {
    /// Lives until a signal comes, then drains. When a worker is lost it cuts what is left, for whoever starts us
    /// anew to do so at once.
    async fn live_until(mut self, signals: Signals, drain: Drain) -> Result<(), Failure> {
        let Signals {
            reopen,
            end: mut signals,
        } = signals;
        if let Some((log, _)) = &self.log {
            self.tasks.spawn(keep_reopening(log.clone(), reopen));
        }
        let told = tokio::select! {
            grace = self.until_told(&mut signals) => Ok(grace),
            () = drain.one_gone() => Err(Failure::WorkersGone),
        };
        let grace = *told.as_ref().unwrap_or(&Duration::ZERO);
        let was_cut = drain.finish(grace, signals.come()).await;
        tracing::info!(was_cut, "drained");
        self.tasks.shutdown().await;
        if let Some((log, writer)) = self.log.take() {
            drop(log);
            if !writer.finish() {
                tracing::warn!("nobody reads the access log: its last lines are lost");
            }
        }
        told.map(drop)
    }

    /// Until a signal comes, and for the delay after it. Returns how long sessions may go on.
    async fn until_told(&self, signals: &mut EndSignals) -> Duration {
        signals.come().await;
        self.admin.is_draining.store(true, Relaxed);
        let runtime = self.plan.runtime;
        tracing::info!(delay = ?runtime.drain_delay, timeout = ?runtime.drain_timeout, "draining");
        tokio::select! {
            () = signals.come() => Duration::ZERO,
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

/// The signals we listen to.
struct Signals {
    end: EndSignals,
    reopen: Signal,
}

/// Those that end the process.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            end: EndSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            reopen: signal(SignalKind::user_defined1())?,
        })
    }
}

impl EndSignals {
    /// One of them comes. Cancel safe.
    async fn come(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_worker_ends_it_all() {
        let text = "[runtime]\nworkers = 2\n[log]\naccess = \"off\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\n\
                    pool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]";
        let loaded = crate::config::read("test.toml", text).ok().unwrap();
        let (house, drain) = open(loaded.plan).unwrap();
        drop(drain.leash().post());
        let ended = house.live_until(Signals::new().unwrap(), drain).await;
        assert!(matches!(ended, Err(Failure::WorkersGone)), "{ended:?}");
    }
}
