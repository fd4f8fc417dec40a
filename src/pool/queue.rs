//! The queue of clients that wait for a server with room.
//!
//! There is one queue for all pools of one name, whatever their plans, and all workers share it. Waiting clients are
//! served by the session that makes room: when it ends, it gives its place to the first in line that may have it. In a
//! pool with a `queue`, no new client takes the place before, because new clients join the line as long as anybody
//! waits. After any other change (a server is up, a reload has raised a limit) all waiting clients are woken, and the
//! one whose task runs first serves the whole line.
//!
//! A TCP client that is allowed to end its stream, and has ended it, may still wait for an answer, or it may be gone:
//! that cannot be seen. So it is served after the clients with open streams, and makes room for them if the line is too
//! long.
//!
//! **No wake-up is lost.** A client that joins is counted before it looks for room. A session makes room before it
//! reads that count. All of this is sequentially consistent, so at least one of the two sees the other.

mod line;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst, fence};
use std::sync::{Arc, Weak};
use std::thread::panicking;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::full_servers::FullServers;
use super::server_observer::ServerObserver;
use super::snapshot::Snapshot;
use super::{Lease, NoLease, Pool, ServerId};
use crate::addr::ClientHost;
use line::{Ticket, Verdict, WaitingLine};

/// A pool, or the value that contains it.
type SharedPool = dyn AsRef<Pool> + Send + Sync;

/// The queue of the pools of one name.
#[derive(Debug)]
pub struct PoolQueue {
    /// How many clients wait. Written under the lock of `line`.
    occupied: AtomicUsize,
    /// Whether something has changed, while clients waited, since the last call of [`Self::serve_if_stale`].
    is_stale: AtomicBool,
    // A blocking mutex: held while the line is served.
    line: Mutex<Waiters>,
    /// Wakes all waiting clients after a change.
    changed: Notify,
    /// Tells the task that starts servers of the pool on demand that a client has lined up.
    joined: Notify,
    /// How long clients may wait for a server that is being started, in milliseconds; 0: none is being started.
    start_wait_ms: AtomicU64,
    /// The pool from whose servers the line is served.
    // A blocking mutex: locked for one statement.
    in_force: Mutex<Weak<SharedPool>>,
    /// Notifies the receivers of [`super::ServerRegistry::subscribe`].
    followers: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Waiters {
    line: WaitingLine<Waiter>,
    /// When time alone may make room: for example, a trial of an ejected server becomes due. `None`: never.
    expires_at: Option<Instant>,
    /// The servers as they were when the line was last served.
    snapshot: Weak<Snapshot>,
    /// How often `snapshot` has changed.
    generation: u64,
}

/// A waiting client.
#[derive(Debug)]
struct Waiter {
    client: ClientHost,
    /// Servers that it does not want, because connecting to them has failed.
    tried: Vec<ServerId>,
    /// The only server that it waits for, with the generation in which that was found; `None`: it waits for any server,
    /// or has had no turn yet.
    awaited: Option<(u64, ServerId)>,
    answer: oneshot::Sender<Result<Lease, NoLease>>,
}

/// The position of a session in the order of arrival. If the session cannot connect to the server that it has waited
/// for, it lines up again at this position.
#[derive(Debug, Default)]
pub struct QueueTurn {
    ticket: Option<Ticket>,
    /// Whether the client has ended its stream.
    pub(super) has_stream_ended: bool,
    /// When it first lined up. Its time is limited from then on, also while it tries a server.
    pub(super) since: Option<Instant>,
}

/// A place in the line. Dropping it leaves the line. A lease that was given meanwhile, but not taken, is dropped, too.
#[derive(Debug)]
pub(super) struct LinePlace<'a> {
    queue: &'a PoolQueue,
    ticket: Ticket,
    /// The client's position in the line when it joined, from 1.
    pub(super) position: usize,
    /// Ready when the client has its answer.
    pub(super) answer: oneshot::Receiver<Result<Lease, NoLease>>,
}

impl Default for PoolQueue {
    fn default() -> Self {
        Self::new(watch::Sender::default())
    }
}

impl PoolQueue {
    /// An empty queue. `followers` are notified by [`ServerObserver::notify_change`].
    pub(super) fn new(followers: watch::Sender<()>) -> Self {
        Self {
            occupied: AtomicUsize::new(0),
            is_stale: AtomicBool::new(false),
            line: Mutex::default(),
            changed: Notify::new(),
            joined: Notify::new(),
            start_wait_ms: AtomicU64::new(0),
            in_force: Mutex::new(Weak::<Pool>::new()),
            followers,
        }
    }
}

impl ServerObserver for PoolQueue {
    fn notify_change(&self) {
        fence(SeqCst); // the change is stored before the count is read
        if !self.is_empty() {
            self.is_stale.store(true, SeqCst);
            self.changed.notify_waiters();
        }
        self.followers.send_replace(());
    }

    fn place_freed(&self) {
        if self.is_empty() {
            return;
        }
        match self.in_force() {
            Some(pool) if !panicking() => self.serve(self.line.lock(), (*pool).as_ref(), Instant::now()),
            // This thread panics, and may hold the lock of the line; or the pool was removed. The woken clients serve
            // the line: if the pool was removed, each from the pool that it holds.
            _ => self.notify_change(),
        }
    }
}

impl PoolQueue {
    /// How many clients wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.occupied.load(SeqCst)
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Serves the line from the servers of this pool from now on.
    pub(super) fn put_in_force(&self, pool: Weak<SharedPool>) {
        *self.in_force.lock() = pool;
        self.notify_change();
    }

    /// Sets how long clients may wait for a server that is being started; `None`: no server is being started.
    pub(super) fn set_start_wait(&self, wait: Option<Duration>) {
        let next = wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        if self.start_wait_ms.swap(next, SeqCst) != next {
            self.notify_change(); // if no server is being started now, waiting clients learn that
        }
    }

    /// See [`Self::set_start_wait`].
    pub(super) fn start_wait(&self) -> Option<Duration> {
        let wait = self.start_wait_ms.load(SeqCst);
        (wait > 0).then(|| Duration::from_millis(wait))
    }

    /// A future that is ready after the next change from this call on.
    pub(super) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    /// Waits until a client has lined up since the last call. Only one task may wait for that.
    pub(super) async fn joined(&self) {
        self.joined.notified().await;
    }

    /// Lines up, and serves the line. The returned place has its answer already if the client got a lease, if no server
    /// is left that it could wait for ([`NoLease::NoServer`]), or if it is the one that leaves a full queue
    /// ([`NoLease::Full`]).
    pub(super) fn join(
        &self,
        own_pool: &Pool,
        (client, tried): (ClientHost, &[ServerId]),
        turn: &mut QueueTurn,
        clients_max: usize,
    ) -> LinePlace<'_> {
        let (sender, answer) = oneshot::channel();
        let waiter = Waiter {
            client,
            tried: tried.to_vec(),
            awaited: None,
            answer: sender,
        };
        let in_force = self.in_force();
        let place; // declared before `waiters`: dropped after the line is unlocked, even if this panics
        let mut waiters = self.line.lock();
        let is_new = turn.ticket.is_none();
        let ticket = *turn.ticket.get_or_insert_with(|| waiters.line.draw());
        let position = waiters.line.join(ticket, turn.has_stream_ended, waiter);
        place = LinePlace {
            queue: self,
            ticket,
            position,
            answer,
        };
        self.occupied.store(waiters.line.len(), SeqCst);
        fence(SeqCst); // the client is counted before it looks for room
        let now = Instant::now();
        let mut answers = waiters.serve(serving(in_force.as_deref(), own_pool), now);
        // A client that comes again, because its connect failed, is not refused: the line may exceed its limit by the
        // number of such clients.
        if is_new && waiters.line.len() > clients_max {
            let refused = waiters.line.make_room_for(ticket);
            answers.extend(refused.map(|waiter| (waiter, Err(NoLease::Full))));
        }
        self.finish(waiters, answers);
        self.joined.notify_one();
        place
    }

    /// Whether a joining client could wait for a server that is not in `tried`.
    pub(super) fn has_any_besides(&self, own_pool: &Pool, tried: &[ServerId], now: Instant) -> bool {
        let in_force = self.in_force();
        serving(in_force.as_deref(), own_pool).has_any_besides(tried, now)
    }

    /// Serves the line if anything has changed since it was last served, or if time alone may have made room. Returns
    /// when to call this again if nothing changes meanwhile; `None`: never.
    pub(super) fn serve_if_stale(&self, own_pool: &Pool, now: Instant) -> Option<Instant> {
        let in_force; // declared before `waiters`: dropped after the line is unlocked, even if this panics
        let waiters = self.line.lock(); // held until the line is served: no other client acts on the same expiry
        let expires_at = waiters.expires_at;
        let has_expired = expires_at.is_some_and(|expires_at| expires_at <= now);
        if !self.is_stale.swap(false, SeqCst) && !has_expired {
            return expires_at;
        }
        in_force = self.in_force();
        self.serve(waiters, serving(in_force.as_deref(), own_pool), now);
        self.line.lock().expires_at
    }

    fn serve(&self, mut waiters: MutexGuard<'_, Waiters>, pool: &Pool, now: Instant) {
        let answers = waiters.serve(pool, now);
        self.finish(waiters, answers);
    }

    /// Counts the clients that still wait, and hands out the answers. If a client has given up meanwhile, its lease is
    /// dropped here, which serves the line again: so the line must not be locked.
    fn finish(&self, waiters: MutexGuard<'_, Waiters>, answers: Vec<(Waiter, Result<Lease, NoLease>)>) {
        self.occupied.store(waiters.line.len(), SeqCst);
        drop(waiters);
        for (waiter, answer) in answers {
            let _ = waiter.answer.send(answer);
        }
    }

    fn in_force(&self) -> Option<Arc<SharedPool>> {
        self.in_force.lock().upgrade()
    }
}

/// The pool from whose servers the line is served: the one in force or, if there is none, the one of the client.
fn serving<'a>(in_force: Option<&'a SharedPool>, own_pool: &'a Pool) -> &'a Pool {
    in_force.map_or(own_pool, AsRef::as_ref)
}

impl Waiters {
    /// Gives the clients their turns, in order. If one client finds a server full, the server counts as full for all
    /// clients behind that client, even if a place on the server becomes free meanwhile: so nobody overtakes.
    ///
    /// The line may be long, and the lock is held meanwhile. Therefore a client that waits for one server has no turn
    /// if that server is full, and the turns end when all servers are found full, unless a server has changed.
    fn serve(&mut self, pool: &Pool, now: Instant) -> Vec<(Waiter, Result<Lease, NoLease>)> {
        let snapshot = pool.snapshot(now);
        let has_changed = !self.snapshot.ptr_eq(&Arc::downgrade(&snapshot));
        if has_changed {
            self.snapshot = Arc::downgrade(&snapshot);
            self.generation += 1;
        }
        let (generation, mut full) = (self.generation, FullServers::default());
        let mut all_are_full = false;
        let answers = self.line.serve(|waiter| {
            let takes_any = pool.waits_for_any_server() && waiter.tried.is_empty();
            let awaited_is_full = waiter
                .awaited
                .is_some_and(|(as_of, server)| as_of == generation && full.contains(server));
            if awaited_is_full || takes_any && all_are_full {
                return Verdict::Waits;
            }
            let picked = pool.pick_with_room(waiter.client, &waiter.tried, &mut full, now);
            match picked {
                Err(NoLease::Full) => {
                    waiter.awaited = full.awaited.take().map(|server| (generation, server));
                    all_are_full |= takes_any || full.contains_all(&snapshot.set.candidates);
                    // After a change, the clients further back that want only some of the servers have a turn although
                    // all are full: they may have no server left to wait for.
                    match all_are_full && !has_changed {
                        true => Verdict::AllWait,
                        false => Verdict::Waits,
                    }
                }
                answer => Verdict::Answered(answer),
            }
        });
        self.expires_at = pool.snapshot(now).set.expires_at(); // if a client was given a trial, this has changed
        answers
    }
}

impl LinePlace<'_> {
    /// Moves the client behind those that have not ended their stream.
    pub(super) fn move_behind_open(&self) {
        self.queue.line.lock().line.move_behind_open(self.ticket);
    }

    /// Leaves the line. Returns whether the client was still in it: if not, an answer has come, or is about to come.
    pub(super) fn leave(&self) -> bool {
        let mut waiters = self.queue.line.lock();
        let was_waiting = waiters.line.leave(self.ticket);
        self.queue.occupied.store(waiters.line.len(), SeqCst);
        was_waiting
    }
}

impl Drop for LinePlace<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
