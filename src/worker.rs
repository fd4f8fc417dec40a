//! One thread, one runtime, its share of every listener. A session never leaves its worker.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::{Ending, Ledger};
use crate::drain::Leash;
use crate::listen::{Listener, Pause};
use crate::relay::limit_pipes;
use crate::session::{Front, serve};

#[cfg(not(panic = "unwind"))]
compile_error!("a panic is to end one session and not all of them, so it has to unwind");

/// How often the metrics learn what open sessions have moved.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// A worker's socket for one address of a listener.
pub struct Gate {
    /// The worker's own.
    pub socket: OwnedFd,
    /// The listener this address belongs to, now and whenever that changes.
    pub front: watch::Receiver<Arc<Front>>,
    /// Accept nobody here any more, but for those who wait already.
    pub stop: CancellationToken,
    /// Held until the socket is closed.
    pub open: Arc<()>,
}

/// All that a worker gets.
pub struct Share {
    /// Its number, for its name.
    pub number: usize,
    /// One for each address of each listener, now and whenever one is added.
    pub gates: UnboundedReceiver<Gate>,
    /// Pipes it may have.
    pub pipes: usize,
    /// Its book.
    pub ledger: Arc<Ledger>,
    /// How it is told to end.
    pub leash: Leash,
}

/// Starts a worker's thread. It ends, and drops its leash, when it was told to stop and its last session is over.
/// Not to be called where a runtime must not be dropped: inside of another.
///
/// # Errors
/// The system has no thread left, or the runtime cannot watch a socket.
pub fn start(share: Share) -> io::Result<()> {
    let Share {
        number,
        gates,
        pipes,
        ledger,
        leash,
    } = share;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let post = leash.post();
    thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let _post = post;
        limit_pipes(pipes);
        runtime.block_on(work(gates, ledger, leash));
    })?;
    Ok(())
}

async fn work(gates: UnboundedReceiver<Gate>, ledger: Arc<Ledger>, leash: Leash) {
    let sessions = TaskTracker::new();
    let told = Arc::clone(&ledger);
    let all = async {
        open_gates(gates, &ledger, &sessions, &leash).await;
        sessions.close();
        tokio::select! {
            () = sessions.wait() => return,
            () = leash.cut.cancelled() => ledger.cut_all(Ending::Drained),
        }
        sessions.wait().await;
    };
    tokio::select! {
        () = all => {}
        () = tell(&told) => unreachable!("it never ends"),
    }
}

/// Opens each gate that comes, until told to stop.
async fn open_gates(mut gates: UnboundedReceiver<Gate>, ledger: &Arc<Ledger>, sessions: &TaskTracker, leash: &Leash) {
    loop {
        let gate = tokio::select! {
            biased;
            () = leash.stop.cancelled() => return,
            gate = gates.recv() => gate,
        };
        let Some(gate) = gate else { return };
        let post = leash.post(); // a panic in a task ends that task alone
        let (ledger, sessions_here, cut) = (Arc::clone(ledger), sessions.clone(), leash.cut.clone());
        sessions.spawn(async move {
            match keep(gate, ledger, sessions_here, cut).await {
                Ok(()) => drop(post.disarm()), // it was told to
                Err(error) => tracing::error!(%error, "cannot watch a listening socket"),
            }
        });
    }
}

/// Lets clients in at one gate until told to stop, and then those who were waiting already.
///
/// # Errors
/// The runtime cannot watch its socket.
async fn keep(gate: Gate, ledger: Arc<Ledger>, sessions: TaskTracker, cut: CancellationToken) -> io::Result<()> {
    let Gate {
        socket,
        mut front,
        stop,
        open: _open,
    } = gate;
    let mut listener = Listener::new(socket)?;
    let mut now = Arc::clone(&front.borrow_and_update());
    // Cancelled while waiting, an accept has let nobody in.
    let mut stopped = pin!(stop.cancelled());
    loop {
        tokio::select! {
            biased;
            () = stopped.as_mut() => break,
            Ok(()) = front.changed() => {
                now = Arc::clone(&front.borrow_and_update());
                listener.adjust(&now.plan.socket, now.plan.backlog);
            }
            accepted = listener.accept(now.series.places(), pauses(&now)) => {
                // Who came after a change meets what was changed, also when the two are seen in one turn.
                if front.has_changed().unwrap_or(false) {
                    now = Arc::clone(&front.borrow());
                }
                now.series.accepted();
                sessions.spawn(serve(accepted, Arc::clone(&now), &ledger));
            }
        }
    }
    listener.close_queue();
    let mut cut = pin!(cut.cancelled());
    loop {
        tokio::select! {
            biased;
            () = cut.as_mut() => break,
            accepted = listener.accept_waiting(now.series.places(), pauses(&now)) => match accepted {
                Some(accepted) => {
                    now.series.accepted();
                    sessions.spawn(serve(accepted, Arc::clone(&now), &ledger));
                }
                None => break,
            },
        }
    }
    let clients = listener.waiting();
    if clients > 0 {
        tracing::warn!(listener = %now.plan.name, clients, "turned away: there was no place for them in time, or they came too late");
    }
    Ok(())
}

fn pauses(front: &Front) -> impl Fn(Pause) {
    |reason| {
        if front.series.paused(reason) {
            tracing::warn!(listener = %front.plan.name, reason = Pause::as_str(reason), "accepting pauses");
        }
    }
}

async fn tell(ledger: &Ledger) {
    let mut ticks = interval(TELL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        ledger.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpStream;

    use tokio::sync::mpsc::unbounded_channel;

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

    /// Starts a worker with one gate, which has the places of `process`.
    fn started(socket: OwnedFd, process: Arc<Capacity>, drain: &Drain) -> watch::Sender<Arc<Front>> {
        let metrics = Arc::new(Metrics::new());
        let in_force = in_force();
        let plan = Arc::clone(&in_force.plan.listeners[0]);
        let series = metrics.listener(&plan.name, || ConnectionLimits::new(None, process));
        let (log, _) = access_log::start(&AccessTarget::Off, LogFormat::Json, metrics.lines_dropped()).unwrap();
        let (front, watched) = watch::channel(Arc::new(Front::new(
            plan,
            in_force.pools.clone(),
            series,
            HelloMemory::new(1 << 20),
        )));
        let (gates, coming) = unbounded_channel();
        let gate = Gate {
            socket,
            front: watched,
            stop: drain.gate(),
            open: Arc::new(()),
        };
        assert!(gates.send(gate).is_ok());
        start(Share {
            number: 0,
            gates: coming,
            pipes: 0,
            ledger: Arc::new(Ledger::new(metrics, log)),
            leash: drain.leash(),
        })
        .unwrap();
        front
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_watched_is_missed() {
        let no_socket = File::open("/proc/self/stat").unwrap(); // epoll takes no file
        let drain = Drain::default();
        let _front = started(no_socket.into(), Capacity::new(None), &drain);
        drain.one_gone().await;
    }

    #[tokio::test]
    async fn a_gate_that_panics_is_missed() {
        let listener = Arc::clone(&in_force().plan.listeners[0]);
        let bound = Bound::new(listener.bind[0], &listener.socket).unwrap();
        let address = bound.address().socket();
        let process = Capacity::new(Some(0));
        process.close(); // which it never is, and who waits for a place says so by a panic
        let (drain, socket) = (Drain::default(), bound.listen(1, 16).unwrap().remove(0));
        let _front = started(socket, process, &drain);
        let _client = TcpStream::connect(address).unwrap();
        drain.one_gone().await;
    }
}
