//! One thread, one runtime, its share of every listener. A session never leaves its worker.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::{Ledger, ListenerIndex, ListenerSeries};
use crate::drain::Leash;
use crate::listen::{Listener, Pause, Places};
use crate::live::Live;
use crate::relay::limit_pipes;
use crate::session::{House, serve};

/// How often the metrics learn what open sessions have moved, and the log that accepting pauses no more.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// A worker's socket for one address of a listener.
pub struct Gate {
    /// Which listener.
    pub listener: ListenerIndex,
    /// The worker's own.
    pub socket: OwnedFd,
    /// The listener's places, shared by all workers.
    pub places: Places,
    /// The listener's series.
    pub series: Arc<ListenerSeries>,
}

/// All that a worker gets.
pub struct Share {
    /// Its number, for its name.
    pub number: usize,
    /// One for each address of each listener.
    pub gates: Vec<Gate>,
    /// Pipes it may have.
    pub pipes: usize,
    /// The plan in force.
    pub live: Arc<Live>,
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
        live,
        ledger,
        leash,
    } = share;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let doors: Vec<Door> = {
        let _within = runtime.enter();
        gates.into_iter().map(Door::new).collect::<io::Result<_>>()?
    };
    let post = leash.post();
    thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let _post = post;
        limit_pipes(pipes);
        runtime.block_on(work(doors, live, ledger, leash));
    })?;
    Ok(())
}

/// A gate that is watched.
struct Door {
    listener: ListenerIndex,
    socket: Listener,
    series: Arc<ListenerSeries>,
}

impl Door {
    /// Registers the gate's socket with the runtime that is entered.
    fn new(gate: Gate) -> io::Result<Self> {
        Ok(Self {
            listener: gate.listener,
            socket: Listener::new(gate.socket, gate.places)?,
            series: gate.series,
        })
    }
}

async fn work(doors: Vec<Door>, live: Arc<Live>, ledger: Arc<Ledger>, leash: Leash) {
    let house = Arc::new(House {
        live,
        ledger: Arc::clone(&ledger),
        cut: leash.cut.clone(),
    });
    let sessions = TaskTracker::new();
    for door in doors {
        let (house, sessions_here, stop) = (Arc::clone(&house), sessions.clone(), leash.stop.clone());
        let post = leash.post(); // a panic in a task ends that task alone
        sessions.spawn(async move {
            let _post = post;
            keep(door, house, sessions_here, stop).await;
        });
    }
    drop(house);
    sessions.close();
    let all_over = sessions.wait();
    tokio::select! {
        () = all_over => {}
        () = tell(&ledger) => unreachable!("it never ends"),
    }
}

/// Lets clients in at one door until told to stop, and then those who were waiting already.
async fn keep(door: Door, house: Arc<House>, sessions: TaskTracker, stop: CancellationToken) {
    let Door {
        listener: index,
        socket: mut listener,
        series,
    } = door;
    let pauses = |reason| {
        if series.paused(reason) {
            tracing::warn!(listener = %series.name(), reason = Pause::as_str(reason), "accepting pauses");
        }
    };
    let let_in = |accepted| {
        series.accepted();
        sessions.spawn(serve(accepted, index, Arc::clone(&house)));
    };
    // Cancelled while waiting, an accept has let nobody in.
    let mut stopped = pin!(stop.cancelled());
    loop {
        tokio::select! {
            biased;
            () = stopped.as_mut() => break,
            accepted = listener.accept(pauses) => let_in(accepted),
        }
    }
    listener.close_queue();
    let mut cut = pin!(house.cut.cancelled());
    loop {
        tokio::select! {
            biased;
            () = cut.as_mut() => break,
            accepted = listener.accept_waiting(pauses) => match accepted {
                Some(accepted) => let_in(accepted),
                None => break,
            },
        }
    }
    let clients = listener.waiting();
    if clients > 0 {
        tracing::warn!(listener = %series.name(), clients, "turned away: there was no place for them in time");
    }
}

async fn tell(ledger: &Ledger) {
    let mut ticks = interval(TELL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        ledger.tell();
        for listener in ledger.listeners().iter().filter(|listener| listener.is_calm_again()) {
            tracing::info!(listener = %listener.name(), "accepting again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpStream;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::account::Metrics;
    use crate::drain::Drain;
    use crate::listen::Bound;
    use crate::plan::Plan;

    const CONFIG: &str = "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]";

    fn plan() -> Plan {
        crate::config::read("test.toml", CONFIG).ok().unwrap().plan
    }

    /// A worker with one gate, which has the places of `process`.
    fn share(socket: OwnedFd, process: Arc<Semaphore>, leash: Leash) -> Share {
        let live = Arc::new(Live::new(plan()));
        let metrics = Arc::new(Metrics::new());
        let places = Places::new(None, process);
        let series = metrics.add_listener(&live.plan().listeners[0].name, places.clone());
        let ledger = Arc::new(Ledger::new(metrics, vec![Arc::clone(&series)], None, false));
        let gate = Gate {
            listener: 0,
            socket,
            places,
            series,
        };
        Share {
            number: 0,
            gates: vec![gate],
            pipes: 0,
            live,
            ledger,
            leash,
        }
    }

    #[test]
    fn a_socket_that_cannot_be_watched_is_an_error() {
        let no_socket = File::open("/proc/self/stat").unwrap(); // epoll takes no file
        let drain = Drain::default();
        assert!(start(share(no_socket.into(), Arc::new(Semaphore::new(1)), drain.leash())).is_err());
    }

    #[tokio::test]
    async fn a_gate_that_panics_is_missed() {
        let listener = Arc::clone(&plan().listeners[0]);
        let bound = Bound::new(listener.bind[0], &listener.socket).unwrap();
        let address = bound.address().socket();
        let process = Arc::new(Semaphore::new(0));
        process.close(); // which it never is, and who waits for a place says so by a panic
        let (drain, socket) = (Drain::default(), bound.listen(1, 16).unwrap().remove(0));
        start(share(socket, process, drain.leash())).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        drain.one_gone().await;
    }
}
