//! A worker: one thread with one runtime and its own listening sockets. A session never leaves its worker.

mod open_address;

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::{Ending, Ledger};
use crate::drain::WorkerHandle;
use crate::late_keepalive;
use crate::listen::{AcceptPause, Accepted, Listener, QueueOwner};
use crate::relay::limit_pipes;
use crate::session::{ListenerState, serve};
pub use open_address::OpenAddress;

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must end one session and not the process, so it has to unwind");

/// How often a worker counts a heartbeat, sets the keepalive of new sessions, and publishes its busy time and the bytes
/// that its open sessions have moved.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the clients in the queue of a removed address wait for permits. Meanwhile the kernel drops the SYNs of
/// further clients instead of refusing them. A client sends its SYN again 1, 3 and 7 s after the first one
/// (tcp_syn_retries in tcp(7)), so it has an answer after 7 s at most.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(5);

/// A worker's socket for one address of a listener.
pub struct ListenSocket {
    /// The socket, which listens already.
    pub socket: OwnedFd,
    /// Who owns the queue of its clients.
    pub queue: QueueOwner,
    /// Receives new states of the listener; `open` sends them.
    pub states: watch::Receiver<Arc<ListenerState>>,
    /// Cancelled to close the socket. If this process owns the queue, clients that wait in it are still accepted.
    pub stop: CancellationToken,
    /// What the open sockets of the address share. Dropped when the socket is closed.
    pub open: Arc<OpenAddress>,
}

/// Shows that a worker's event loop runs: the worker counts a beat every second.
#[derive(Debug, Default)]
pub struct Heartbeat(AtomicU64);

impl Heartbeat {
    /// The number of beats so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Counts a beat.
    pub fn beat(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The input of a worker at its start.
pub struct WorkerSetup {
    /// Its number, for the name of its thread.
    pub number: usize,
    /// Its listening sockets: one for each address of each listener, and those that reloads add.
    pub sockets: UnboundedReceiver<ListenSocket>,
    /// How many pipes its sessions may have at once.
    pub pipes: usize,
    /// Where its sessions are accounted for.
    pub ledger: Arc<Ledger>,
    /// Where the worker shows that it runs. Dropped when the worker ends.
    pub heartbeat: Arc<Heartbeat>,
    /// How it learns of the shutdown, and reports its own end.
    pub handle: WorkerHandle,
}

/// Starts a worker's thread. The thread ends, and drops `handle`, when the worker was stopped and its last session is
/// over. Must not be called within a runtime: an error here drops the worker's runtime, which must not happen inside
/// another one.
///
/// # Errors
/// The system has no thread left, or no descriptors for the runtime.
pub fn start(setup: WorkerSetup) -> io::Result<()> {
    let WorkerSetup {
        number,
        sockets,
        pipes,
        ledger,
        heartbeat,
        handle,
    } = setup;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = handle.shutdown_guard();
    thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let _guard = guard;
        limit_pipes(pipes);
        runtime.block_on(run(sockets, ledger, &heartbeat, handle));
    })?;
    Ok(())
}

async fn run(
    sockets: UnboundedReceiver<ListenSocket>,
    ledger: Arc<Ledger>,
    heartbeat: &Heartbeat,
    handle: WorkerHandle,
) {
    let sessions = TaskTracker::new();
    let serving = async {
        run_sockets(sockets, &ledger, &sessions, &handle).await;
        sessions.close();
        tokio::select! {
            () = sessions.wait() => return,
            () = handle.cut.cancelled() => if ledger.cut_all(Ending::Drained) {
                handle.record_cut();
            }
        }
        sessions.wait().await;
    };
    tokio::select! {
        () = serving => {}
        () = work_every_second(&ledger, heartbeat) => unreachable!("it never ends"),
    }
}

/// Starts a task for each socket that comes, until the shutdown.
async fn run_sockets(
    mut sockets: UnboundedReceiver<ListenSocket>,
    ledger: &Arc<Ledger>,
    sessions: &TaskTracker,
    handle: &WorkerHandle,
) {
    loop {
        let socket = tokio::select! {
            biased;
            () = handle.stop.cancelled() => return,
            socket = sockets.recv() => socket,
        };
        let Some(socket) = socket else { return };
        let guard = handle.shutdown_guard(); // a panic ends only the task: the guard reports it
        let (ledger, spawner) = (Arc::clone(ledger), sessions.clone());
        let (shutdown, cut) = (handle.stop.clone(), handle.cut.clone());
        sessions.spawn(async move {
            match accept_until_stopped(socket, ledger, spawner, shutdown, cut).await {
                Ok(()) => guard.disarm(),
                Err(error) => tracing::error!(%error, "cannot watch a listening socket"),
            }
        });
    }
}

/// Accepts clients at one socket until it is stopped, and then, if this process owns the queue, the clients that
/// already wait in it. Returns early if the socket is shut down from outside.
///
/// # Errors
/// The runtime cannot watch the socket.
async fn accept_until_stopped(
    socket: ListenSocket,
    ledger: Arc<Ledger>,
    sessions: TaskTracker,
    shutdown: CancellationToken,
    cut: CancellationToken,
) -> io::Result<()> {
    let ListenSocket {
        socket,
        queue,
        mut states,
        stop,
        open,
    } = socket;
    let mut listener = Listener::new(socket, queue)?;
    let begin_session = |accepted, state: &Arc<ListenerState>| {
        state.series.record_accepted();
        sessions.spawn(serve(accepted, Arc::clone(state), &ledger));
    };
    let mut state = Arc::clone(&states.borrow_and_update());
    let mut changes = states.clone(); // a second receiver: `changed` borrows it, and `states` is used meanwhile
    let mut stopped = pin!(stop.cancelled());
    'open: loop {
        let mut changed = pin!(changes.changed()); // kept between accepts: a new wait costs as much as an accept
        loop {
            // Clients come first. `stop` and a new state are noticed when `accept` waits: for clients, for a permit, in
            // a pause, or, after each batch of clients, for other tasks. An accept that is dropped while it waits has
            // accepted nothing.
            tokio::select! {
                biased;
                accepted = listener.accept(&state.limits, on_pause(&state)) => {
                    let Ok(accepted) = accepted else {
                        // The socket was shut down from outside. Close it before the address is bound again.
                        drop(listener);
                        open.record_loss();
                        return Ok(());
                    };
                    // A client that came after a reload gets the new state, even if both are noticed in the same turn.
                    if states.has_changed().unwrap_or(false) {
                        state = Arc::clone(&states.borrow());
                    }
                    begin_session(accepted, &state);
                }
                () = stopped.as_mut() => break 'open,
                changed = changed.as_mut() => break changed.expect("`open` holds the sender"),
            }
        }
        state = Arc::clone(&states.borrow_and_update());
        listener.adjust(&state.plan.socket, state.plan.backlog);
    }
    listener.close_queue();
    accept_waiting(&mut listener, &mut states, begin_session, give_up(&shutdown, &cut)).await;
    let clients = listener.clients_to_reset();
    if clients > 0 {
        tracing::warn!(listener = %state.plan.name, clients, "clients reset: the listener closed before they got a permit");
    }
    Ok(())
}

/// Accepts the clients that [`Listener::accept_waiting`] gives: those that wait in the queue of a closing socket, and a
/// few that join it later (an empty queue still takes a client). Ends when there are no more, or when `given_up` ends.
/// If another listener has taken over the address, `states` has its state, and the clients become clients of that
/// listener.
async fn accept_waiting(
    listener: &mut Listener,
    states: &mut watch::Receiver<Arc<ListenerState>>,
    begin_session: impl Fn(Accepted, &Arc<ListenerState>),
    given_up: impl Future<Output = ()>,
) {
    let mut state = Arc::clone(&states.borrow_and_update());
    let mut given_up = pin!(given_up);
    loop {
        tokio::select! {
            biased;
            () = given_up.as_mut() => return,
            Ok(()) = states.changed() => state = Arc::clone(&states.borrow_and_update()),
            accepted = listener.accept_waiting(&state.limits, on_pause(&state)) => match accepted {
                Some(accepted) => begin_session(accepted, &state),
                None => return,
            },
        }
    }
}

/// Ends when the clients that wait at a closing socket have waited for long enough. At a shutdown, that is when `cut`
/// is cancelled, which also ends the sessions. After the removal of an address, it is after [`QUEUE_WAIT_MAX`].
async fn give_up(shutdown: &CancellationToken, cut: &CancellationToken) {
    let removed_for_too_long = async {
        sleep(QUEUE_WAIT_MAX).await;
        // Asked only now: a shutdown may cancel the socket's `stop`, which led here, before it cancels `shutdown`.
        if shutdown.is_cancelled() {
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = cut.cancelled() => {}
        () = removed_for_too_long => {}
    }
}

fn on_pause(state: &ListenerState) -> impl Fn(AcceptPause) {
    |reason| {
        let begins_episode = state.series.record_pause(reason);
        if begins_episode {
            tracing::warn!(listener = %state.plan.name, reason = AcceptPause::as_str(reason), "accepting pauses");
        }
    }
}

async fn work_every_second(ledger: &Ledger, heartbeat: &Heartbeat) {
    let mut ticks = interval(TICK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let runtime = runtime::Handle::current().metrics();
    loop {
        ticks.tick().await;
        late_keepalive::set_due();
        ledger.publish_traffic();
        ledger.record_busy(runtime.worker_total_busy_duration(0));
        heartbeat.beat();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpStream;

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::account::Metrics;
    use crate::account::access_log::{self, AccessTarget, LogFormat};
    use crate::capacity::{Capacity, ConnectionLimits};
    use crate::drain::Drain;
    use crate::listen::Bound;
    use crate::live::{InForce, Live};
    use crate::sniff::HelloMemory;

    const CONFIG: &str = "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]";

    fn in_force() -> Arc<InForce> {
        Live::new(crate::config::read("test.toml", CONFIG).ok().unwrap().plan, Vec::new()).in_force()
    }

    /// Starts a worker with one socket, whose sessions need a permit of `process`.
    fn start_worker(socket: OwnedFd, process: Arc<Capacity>, drain: &Drain) {
        let metrics = Arc::new(Metrics::new());
        let in_force = in_force();
        let plan = Arc::clone(&in_force.plan.listeners[0]);
        let (series, limits) = (metrics.listener(&plan.name), ConnectionLimits::new(None, process));
        let (log, _) = access_log::start(&AccessTarget::Off, LogFormat::Json, metrics.lines_dropped()).unwrap();
        let memory = HelloMemory::new(1 << 20);
        let state = ListenerState::new(plan, &in_force, limits, series, memory, Default::default());
        let (sockets, coming) = unbounded_channel();
        let open = Arc::new(OpenAddress::new(Arc::new(state), Arc::default()));
        let socket = ListenSocket {
            socket,
            queue: QueueOwner::Process,
            states: open.states(),
            stop: drain.socket_stop(),
            open,
        };
        assert!(sockets.send(socket).is_ok());
        start(WorkerSetup {
            number: 0,
            sockets: coming,
            pipes: 0,
            ledger: Arc::new(Ledger::new(metrics, log)),
            heartbeat: Arc::default(),
            handle: drain.worker_handle(),
        })
        .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_a_removed_address_wait_for_a_bounded_time_unless_the_process_ends() {
        let [shutdown, cut] = [(); 2].map(|()| CancellationToken::new());
        let began = Instant::now();
        give_up(&shutdown, &cut).await;
        assert_eq!(began.elapsed(), QUEUE_WAIT_MAX);
        shutdown.cancel();
        let waited = timeout(QUEUE_WAIT_MAX * 100, give_up(&shutdown, &cut)).await;
        assert!(waited.is_err());
        let began = Instant::now();
        cut.cancel();
        give_up(&shutdown, &cut).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_watched_is_reported() {
        let no_socket = File::open("/proc/self/stat").unwrap(); // epoll cannot watch a file
        let drain = Drain::default();
        start_worker(no_socket.into(), Capacity::new(None), &drain);
        drain.worker_lost().await;
    }

    #[tokio::test]
    async fn a_panic_while_accepting_is_reported() {
        let listener = Arc::clone(&in_force().plan.listeners[0]);
        let bound = Bound::new(listener.bind[0], &listener.socket).unwrap();
        let address = bound.address().socket().unwrap();
        let process = Capacity::new(Some(0));
        process.close(); // happens only in this test: now waiting for a permit panics
        let (drain, socket) = (Drain::default(), bound.listen(1, 16).unwrap().sockets.remove(0));
        start_worker(socket, process, &drain);
        let _client = TcpStream::connect(address).unwrap();
        drain.worker_lost().await;
    }
}
