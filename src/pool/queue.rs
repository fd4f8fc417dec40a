//! The queue of clients that wait for a server with room.
//!
//! There is one queue for all pools of one name, whatever their plans, and all workers share it. Who waits is served by
//! whoever makes room: the end of a session gives its place to the first in line that may have it, before anybody else
//! sees the place. After any other change (a server is up, a reload has raised a limit) those who wait are woken, and the
//! first of them serves the line.
//!
//! A client that has ended its stream may still wait for an answer, or be gone: nobody can tell. So it is served after those
//! who have not, and makes room for them where the line is too long.
//!
//! **No wake-up is lost.** Who joins is counted before it looks for room. Who makes room does that before it reads the
//! count. All of this is sequentially consistent, so at least one of the two sees the other.

mod line;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::full_servers::FullServers;
use super::server_observer::ServerObserver;
use super::snapshot::Snapshot;
use super::{Lease, NoLease, Pool, ServerId};
use crate::addr::ClientHost;
use line::{Ticket, Verdict, WaitingLine};

/// A pool that others share.
type SharedPool = dyn AsRef<Pool> + Send + Sync;

/// The queue of the pools of one name.
#[derive(Debug)]
pub struct PoolQueue {
    /// How many wait. Written under the lock of `line`.
    occupied: AtomicUsize,
    /// Whether something has changed since everybody in the line had a turn.
    is_stale: AtomicBool,
    // A std mutex: held while the line is served.
    line: Mutex<Waiters>,
    /// Wakes all who wait after a change.
    changed: Notify,
    /// Tells who wakes a pool that sleeps.
    joined: Notify,
    /// How long clients may wait for a server that is being started, in milliseconds; 0: none is.
    start_wait_ms: AtomicU64,
    /// The pool whose servers the line is served from. A std mutex: locked for a line.
    in_force: Mutex<Weak<SharedPool>>,
    /// Tells those who follow all pools of changes.
    followers: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Waiters {
    line: WaitingLine<Waiter>,
    /// When time alone may make room, such as for the trial of an ejected server; `None`: never.
    expires: Option<Instant>,
    /// The servers as of when everybody had a turn last, and how often they have changed.
    snapshot: Weak<Snapshot>,
    generation: u64,
}

/// One who waits.
#[derive(Debug)]
struct Waiter {
    client: ClientHost,
    /// Servers that it does not want, because connecting to them has failed.
    tried: Vec<ServerId>,
    /// The one server that it waits for, as of this generation; `None`: it waits for any, or has had no turn yet.
    own: Option<(u64, ServerId)>,
    answer: oneshot::Sender<Result<Lease, NoLease>>,
}

/// The place of a session in the order of arrival. It keeps it when a server that it waited for cannot be connected to.
#[derive(Debug, Default)]
pub struct QueueTurn {
    ticket: Option<Ticket>,
    /// Whether the client has ended its stream.
    pub(super) has_ended: bool,
    /// How long it has waited so far.
    pub(super) waited: Duration,
}

/// A place in the line. Dropping it leaves the line, and returns a lease that was given meanwhile.
#[derive(Debug)]
pub(super) struct LinePlace<'a> {
    queue: &'a PoolQueue,
    ticket: Ticket,
    /// How many were in the line with it and before it.
    pub(super) position: usize,
    /// Ready when it is answered.
    pub(super) answer: oneshot::Receiver<Result<Lease, NoLease>>,
}

impl Default for PoolQueue {
    fn default() -> Self {
        Self::new(watch::Sender::default())
    }
}

impl PoolQueue {
    /// A queue in which nobody waits. `followers` are notified of every change of its servers.
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
            Some(pool) => self.serve((*pool).as_ref(), Instant::now()),
            // It was removed. Those who wait know the pool that they wait for.
            None => self.notify_change(),
        }
    }
}

impl PoolQueue {
    /// How many wait.
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
        *self.lock_in_force() = pool;
        self.notify_change();
    }

    /// Sets how long clients may wait for a server that is being started; `None`: none is.
    pub(super) fn set_start_wait(&self, wait: Option<Duration>) {
        let next = wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        if self.start_wait_ms.swap(next, SeqCst) != next {
            self.notify_change(); // who waits learns that nothing starts
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

    /// Waits until somebody has lined up since the last call. For one waiter.
    pub(super) async fn joined(&self) {
        self.joined.notified().await;
    }

    /// Lines up, and serves the line: if there is room, or the queue is full ([`NoLease::Full`]), the place is answered
    /// already.
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
            own: None,
            answer: sender,
        };
        let in_force = self.in_force();
        let mut waiters = self.lock();
        let is_new = turn.ticket.is_none();
        let ticket = *turn.ticket.get_or_insert_with(|| waiters.line.draw());
        let position = waiters.line.join(ticket, turn.has_ended, waiter);
        let place = LinePlace {
            queue: self,
            ticket,
            position,
            answer,
        };
        self.occupied.store(waiters.line.len(), SeqCst);
        fence(SeqCst); // it is counted before room is looked for
        let now = Instant::now();
        let mut answers = waiters.serve(in_force.as_deref().map_or(own_pool, AsRef::as_ref), now);
        // Who comes again has its place. So the line is too long by at most those that were given a lease.
        if is_new && waiters.line.len() > clients_max {
            let refused = waiters.line.make_room_for(ticket);
            answers.extend(refused.map(|waiter| (waiter, Err(NoLease::Full))));
        }
        self.finish(waiters, answers);
        self.joined.notify_one();
        place
    }

    /// Whether all servers that one who joins could wait for are among these.
    pub(super) fn has_only(&self, own_pool: &Pool, tried: &[ServerId], now: Instant) -> bool {
        let in_force = self.in_force();
        let pool = in_force.as_deref().map_or(own_pool, AsRef::as_ref);
        pool.has_only(tried, now)
    }

    /// Serves the line if anything has changed since that was last done. Returns when to call it again if nothing changes
    /// meanwhile; `None`: never.
    pub(super) fn serve_if_stale(&self, own_pool: &Pool, now: Instant) -> Option<Instant> {
        let expires = self.lock().expires;
        let has_expired = expires.is_some_and(|expires| expires <= now);
        if !self.is_stale.swap(false, SeqCst) && !has_expired {
            return expires;
        }
        let in_force = self.in_force();
        self.serve(in_force.as_deref().map_or(own_pool, AsRef::as_ref), now);
        self.lock().expires
    }

    fn serve(&self, pool: &Pool, now: Instant) {
        let mut waiters = self.lock();
        let answers = waiters.serve(pool, now);
        self.finish(waiters, answers);
    }

    /// Counts who is left, and hands out the answers. Those who have left meanwhile drop their lease, which serves the line
    /// again; so it must not be locked.
    fn finish(&self, waiters: MutexGuard<'_, Waiters>, answers: Vec<(Waiter, Result<Lease, NoLease>)>) {
        self.occupied.store(waiters.line.len(), SeqCst);
        drop(waiters);
        for (waiter, answer) in answers {
            let _ = waiter.answer.send(answer);
        }
    }

    fn in_force(&self) -> Option<Arc<SharedPool>> {
        self.lock_in_force().upgrade()
    }

    fn lock_in_force(&self) -> MutexGuard<'_, Weak<SharedPool>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    /// Gives everybody a turn, in order. A server that somebody found full is full for all behind it, even if a place on it
    /// becomes free meanwhile: nobody overtakes.
    ///
    /// The line may be long, and the lock is held meanwhile: who waits for a server of its own has no turn while that is full,
    /// and when all servers are full nobody has.
    fn serve(&mut self, pool: &Pool, now: Instant) -> Vec<(Waiter, Result<Lease, NoLease>)> {
        let snapshot = pool.snapshot(now);
        let has_changed = !self.snapshot.ptr_eq(&Arc::downgrade(&snapshot));
        if has_changed {
            self.snapshot = Arc::downgrade(&snapshot);
            self.generation += 1;
        }
        let (generation, mut full) = (self.generation, FullServers::default());
        let answers = self.line.serve(|waiter| {
            if waiter
                .own
                .is_some_and(|(as_of, own)| as_of == generation && full.contains(own))
            {
                return Verdict::Waits;
            }
            let picked = pool.pick_with_room(waiter.client, &waiter.tried, &mut full, now);
            match picked {
                Err(NoLease::Full) if pool.waits_for_any_server() && waiter.tried.is_empty() => Verdict::AllWait,
                Err(NoLease::Full) => {
                    waiter.own = full.awaited.take().map(|own| (generation, own));
                    // After a change, some may learn that they have no server left.
                    match !has_changed && full.contains_all(&snapshot.set.candidates) {
                        true => Verdict::AllWait,
                        false => Verdict::Waits,
                    }
                }
                answer => Verdict::Answered(answer),
            }
        });
        self.expires = pool.snapshot(now).set.expires(); // a trial that was given has changed it
        answers
    }
}

impl LinePlace<'_> {
    /// Moves behind those who have not ended their stream.
    pub(super) fn move_behind_open(&self) {
        self.queue.lock().line.move_behind_open(self.ticket);
    }

    /// Leaves the line. Returns whether it was still in it: else an answer has come, or is about to.
    pub(super) fn leave(&self) -> bool {
        let mut waiters = self.queue.lock();
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
