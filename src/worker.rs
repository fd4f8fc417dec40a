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
///
/// # Errors
/// The system has no thread left.
pub fn start(share: Share) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name(format!("worker-{}", share.number))
        .spawn(move || {
            limit_pipes(share.pipes);
            runtime.block_on(work(share));
        })?;
    Ok(())
}

async fn work(share: Share) {
    let Share {
        gates,
        live,
        ledger,
        leash,
        ..
    } = share;
    let house = Arc::new(House {
        live,
        ledger: Arc::clone(&ledger),
        cut: leash.cut.clone(),
    });
    let sessions = TaskTracker::new();
    for gate in gates {
        sessions.spawn(keep(gate, Arc::clone(&house), sessions.clone(), leash.stop.clone()));
    }
    drop(house);
    sessions.close();
    let all_over = sessions.wait();
    tokio::select! {
        () = all_over => {}
        () = tell(&ledger) => unreachable!("it never ends"),
    }
}

/// Lets clients in at one gate until told to stop, and then those who were waiting already.
async fn keep(gate: Gate, house: Arc<House>, sessions: TaskTracker, stop: CancellationToken) {
    let Gate {
        listener: index,
        socket,
        places,
        series,
    } = gate;
    let mut listener = match Listener::new(socket, places) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(listener = %series.name(), %error, "cannot listen"),
    };
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
