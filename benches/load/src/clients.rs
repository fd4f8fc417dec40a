//! The clients: they put a load on a proxy for some time and count what is done.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::hello::Hellos;
use crate::pace::pace;
use crate::servers::BULK_BYTES;
use crate::workload::{Answer, Load};

/// Clients of round trips and bulk transfers that connect at the same time: few enough for any backlog.
const CONNECTING_MAX: usize = 64;

/// Time for all clients to connect; after it, counting begins with those that are connected.
const CONNECTING_TIME_MAX: Duration = Duration::from_secs(20);

/// The message of [`Load::Paced`] and [`Load::NewSessions`], the first message of each session of round trips, and the
/// beginning of a request of [`Load::FirstAnswer`] without a name.
const MESSAGE: [u8; 64] = [7; 64];

/// The clients of [`Load::FirstAnswer`]: few enough that none waits for another.
const FIRST_ANSWER_CLIENTS: usize = 2;

/// The largest recorded latency, a minute, in nanoseconds. Latencies have a precision of two digits.
const LATENCY_MAX: u64 = 60_000_000_000;

/// The addresses that clients connect to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) echo: SocketAddr,
    pub(crate) source: SocketAddr,
    pub(crate) sink: SocketAddr,
    /// Routed by name, one for each number in [`crate::workload::NAME_COUNTS`].
    pub(crate) by_name: [SocketAddr; 3],
}

/// The result of one run.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Units per second.
    pub(crate) rate: f64,
    /// The proxy's CPU time per unit, in seconds.
    pub(crate) cpu_each: f64,
    /// Latencies of single units, in nanoseconds; empty for bulk transfers.
    pub(crate) latencies: Histogram<u64>,
    /// Connections refused, reset or ended too early, and clients that were not connected in time.
    pub(crate) errors: u64,
}

/// The parameters of a run.
pub(crate) struct Run<'a> {
    pub(crate) target: Target,
    pub(crate) hellos: &'a Hellos,
    /// How long to count. Counting begins a tenth of this after the clients may work.
    pub(crate) time: Duration,
    /// Returns the proxy's CPU time so far.
    pub(crate) cpu: &'a dyn Fn() -> Duration,
    /// Bytes that the servers of bulk transfers have received and discarded so far.
    pub(crate) discarded: &'a Arc<AtomicU64>,
}

/// The counts shared by the clients of one run, which run on one thread.
struct Counts {
    /// Whether latencies are recorded. Units and errors are counted at all times.
    is_recording: Cell<bool>,
    /// Units of work; for [`Load::Bulk`], the bytes that clients have received.
    units: Cell<u64>,
    errors: Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
    connected: watch::Sender<usize>,
    /// Clients (but not slow readers) start to work only when all are connected, or after [`CONNECTING_TIME_MAX`]:
    /// thousands at work would slow down those still connecting.
    may_work: watch::Sender<bool>,
    connect_permits: Semaphore,
}

impl Counts {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            is_recording: Cell::new(false),
            units: Cell::new(0),
            errors: Cell::new(0),
            latencies: RefCell::new(no_latencies()),
            connected: watch::Sender::new(0),
            may_work: watch::Sender::new(false),
            connect_permits: Semaphore::new(CONNECTING_MAX),
        })
    }

    /// Counts units of work, or received bytes.
    fn count(&self, units: u64) {
        self.units.set(self.units.get() + units);
    }

    /// Counts one unit of work. Its latency is the time since it began or was due.
    fn count_since(&self, began: Instant) {
        self.count(1);
        if self.is_recording.get() {
            self.latencies
                .borrow_mut()
                .saturating_record(began.elapsed().as_nanos() as u64);
        }
    }

    fn count_failure(&self) {
        self.errors.set(self.errors.get() + 1);
    }

    fn count_connected(&self) {
        self.connected.send_modify(|clients| *clients += 1);
    }

    /// Waits until this many clients are connected, and lets them work. Those missing after [`CONNECTING_TIME_MAX`]
    /// count as failed.
    async fn start_when_connected(&self, clients: usize) {
        let mut connected = self.connected.subscribe();
        let all = connected.wait_for(|connected| *connected >= clients);
        if timeout(CONNECTING_TIME_MAX, all).await.is_err() {
            (*self.connected.borrow()..clients).for_each(|_| self.count_failure());
        }
        self.may_work.send_replace(true);
    }

    /// Waits until all clients are connected, for at most [`CONNECTING_TIME_MAX`].
    async fn until_all_connected(&self) {
        let _ = self.may_work.subscribe().wait_for(|may_work| *may_work).await; // cannot fail: self holds the sender
    }

    /// Connects, sends `first` and waits for the echo, again until that succeeds. Then counts the client as connected,
    /// and returns when the clients may work.
    async fn connect(&self, address: SocketAddr, first: &[u8]) -> TcpStream {
        let permit = self
            .connect_permits
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let mut answer = vec![0; first.len()];
        loop {
            let one = async {
                let mut socket = connect(address).await?;
                exchange(&mut socket, first, &mut answer).await?;
                io::Result::Ok(socket)
            };
            if let Ok(socket) = one.await {
                self.count_connected();
                drop(permit);
                self.until_all_connected().await;
                return socket;
            }
            self.count_failure();
            sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) fn no_latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, LATENCY_MAX, 2).expect("the bounds are valid")
}

impl Run<'_> {
    /// Runs the load and counts. The clients are dropped at the end.
    pub(crate) async fn measure(&self, load: Load) -> Measured {
        let tasks = LocalSet::new();
        let counts = Counts::new();
        // Units counted by the clients and bytes that have arrived at the servers, so far.
        let done = || (counts.units.get(), self.discarded.load(Relaxed));
        let (seconds, cpu, units) = tasks
            .run_until(async {
                let clients = self.begin(load, &counts);
                counts.start_when_connected(clients).await;
                sleep(self.time / 10).await;
                counts.is_recording.set(true);
                let (began, cpu_before, (counted_before, arrived_before)) = (Instant::now(), (self.cpu)(), done());
                sleep(self.time).await;
                counts.is_recording.set(false);
                let cpu = (self.cpu)().saturating_sub(cpu_before);
                let (counted, arrived) = done();
                let units = match load {
                    Load::Bulk { .. } => (counted - counted_before + arrived - arrived_before) as f64 / 1e9,
                    _ => (counted - counted_before) as f64,
                };
                (began.elapsed().as_secs_f64(), cpu.as_secs_f64(), units)
            })
            .await;
        drop(tasks);
        Measured {
            rate: units / seconds,
            cpu_each: cpu / units,
            latencies: counts.latencies.replace(no_latencies()),
            errors: counts.errors.get(),
        }
    }

    /// Starts the clients; returns how many of them must be connected, or ready to connect, before counting begins.
    fn begin(&self, load: Load, counts: &Rc<Counts>) -> usize {
        let Target { echo, source, .. } = self.target;
        let counts = || Rc::clone(counts);
        match load {
            Load::RoundTrips { sessions, bytes } => {
                (0..sessions).for_each(|_| drop(spawn_local(round_trips(echo, bytes, counts()))));
                sessions
            }
            Load::BesideSlow { sessions, slow } => {
                (0..slow).for_each(|_| drop(spawn_local(slow_reader(source, counts()))));
                (0..sessions).for_each(|_| drop(spawn_local(round_trips(echo, 64, counts()))));
                slow + sessions
            }
            Load::Paced { sessions, rate } => {
                let senders = (0..sessions).map(|_| {
                    let (sender, due_times) = unbounded_channel();
                    spawn_local(paced_round_trips(echo, due_times, counts()));
                    sender
                });
                let senders: Vec<_> = senders.collect();
                let counts = counts();
                spawn_local(async move {
                    counts.until_all_connected().await;
                    pace(rate, senders);
                });
                sessions
            }
            Load::NewSessions { clients } => {
                let messages: Messages = vec![MESSAGE.into()].into();
                (0..clients).for_each(|_| drop(spawn_local(new_sessions(echo, Rc::clone(&messages), None, counts()))));
                clients
            }
            Load::FirstAnswer { answer, by_name } => {
                let (address, first) = if by_name {
                    let (index, hellos) = self.hellos.among(1);
                    (self.target.by_name[index], hellos[0].to_vec())
                } else {
                    (echo, MESSAGE.to_vec())
                };
                let messages: Messages = vec![[&first, answer.request_end()].concat().into()].into();
                for _ in 0..FIRST_ANSWER_CLIENTS {
                    spawn_local(new_sessions(address, Rc::clone(&messages), Some(answer), counts()));
                }
                FIRST_ANSWER_CLIENTS
            }
            Load::NewByName { clients, names } => {
                let (index, hellos) = self.hellos.among(names);
                let address = self.target.by_name[index];
                (0..clients).for_each(|_| drop(spawn_local(new_sessions(address, Rc::clone(&hellos), None, counts()))));
                clients
            }
            Load::Bulk { sessions, up, down } => {
                let address = if down { source } else { self.target.sink };
                (0..sessions).for_each(|_| drop(spawn_local(bulk(address, up, down, counts()))));
                sessions
            }
        }
    }
}

/// Sends and waits for the echo, again and again; a session that breaks is counted as failed and replaced.
async fn round_trips(address: SocketAddr, bytes: usize, counts: Rc<Counts>) {
    let message = vec![7; bytes];
    let mut answer = vec![0; bytes];
    loop {
        let mut socket = counts.connect(address, &MESSAGE).await;
        loop {
            let began = Instant::now();
            if exchange(&mut socket, &message, &mut answer).await.is_err() {
                counts.count_failure();
                break;
            }
            counts.count_since(began);
        }
    }
}

/// Sends each message when it is due. A message that is due during another exchange waits, and its latency includes the
/// wait.
async fn paced_round_trips(address: SocketAddr, mut due_times: UnboundedReceiver<Instant>, counts: Rc<Counts>) {
    let mut answer = [0; 64];
    let mut socket = counts.connect(address, &MESSAGE).await;
    while let Some(due) = due_times.recv().await {
        if exchange(&mut socket, &MESSAGE, &mut answer).await.is_err() {
            counts.count_failure();
            socket = counts.connect(address, &MESSAGE).await;
            continue;
        }
        counts.count_since(due);
    }
}

/// Messages, one of which is sent in each session.
type Messages = Rc<[Box<[u8]>]>;

/// Connects, sends one of these messages, waits for the answer, and closes, again and again. `asked`: the answer that
/// the messages ask for; `None`: the answer is the echo.
async fn new_sessions(address: SocketAddr, messages: Messages, asked: Option<Answer>, counts: Rc<Counts>) {
    // Visits all messages, in the same order for every proxy: the step has no common factor with their number.
    const STEP: usize = 7919;
    let client = *counts.connected.borrow();
    let mut index = client * 104_729; // each client starts at another message, if there are enough
    counts.count_connected(); // ready: each of its sessions connects later
    counts.until_all_connected().await;
    let mut answer = Vec::new();
    loop {
        index = (index + STEP) % messages.len();
        let message = &messages[index];
        answer.resize(asked.map_or(message.len(), |asked| asked.writes().iter().sum()), 0);
        let began = Instant::now();
        let one = async {
            let mut socket = connect(address).await?;
            exchange(&mut socket, message, &mut answer).await
        };
        match one.await {
            Ok(()) => counts.count_since(began),
            Err(_) => {
                counts.count_failure();
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Sends, receives or both endlessly. Sent bytes are counted where they arrive.
async fn bulk(address: SocketAddr, up: bool, down: bool, counts: Rc<Counts>) {
    let socket = counts.connect(address, &[]).await;
    let (mut reading, mut writing) = socket.into_split();
    let send = async {
        let bytes = vec![7; BULK_BYTES];
        while up && writing.write_all(&bytes).await.is_ok() {}
    };
    let receive = async {
        let mut bytes = vec![0; BULK_BYTES];
        while down && let Ok(read @ 1..) = reading.read(&mut bytes).await {
            counts.count(read as u64);
        }
    };
    tokio::join!(send, receive);
    counts.count_failure(); // reached only if the connection broke
}

/// Reads 16 KiB ten times a second while the server sends as fast as it can. Counts as connected once the buffers on
/// the way have had time to fill.
async fn slow_reader(address: SocketAddr, counts: Rc<Counts>) {
    const READS_UNTIL_FULL: usize = 10;
    let mut bytes = vec![0; 16 * 1024];
    let one = async {
        let mut socket = connect(address).await?;
        for read in 1.. {
            socket.read_exact(&mut bytes).await?;
            if read == READS_UNTIL_FULL {
                counts.count_connected();
            }
            sleep(Duration::from_millis(100)).await;
        }
        io::Result::Ok(())
    };
    if one.await.is_err() {
        counts.count_failure();
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn exchange(socket: &mut TcpStream, message: &[u8], answer: &mut [u8]) -> io::Result<()> {
    socket.write_all(message).await?;
    socket.read_exact(answer).await?;
    Ok(())
}

/// Opens this many sessions, exchanges one byte in each, and calls `then` while all of them are idle.
///
/// # Errors
/// When one of the sessions fails.
pub(crate) async fn with_idle_sessions<T>(
    address: SocketAddr,
    sessions: usize,
    then: impl FnOnce() -> T,
) -> io::Result<T> {
    let mut held = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        let mut socket = connect(address).await?;
        exchange(&mut socket, b"x", &mut [0]).await?;
        held.push(socket);
    }
    Ok(then())
}
