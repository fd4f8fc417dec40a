//! Health checks: timers and sockets here, the machine that judges in [`crate::pool::health`].
//!
//! Every pool has one task that tends it: it resolves names, and runs one prober for each server there is. A reload
//! changes what it tends, and lets it go on.

mod answers;
mod postgres;
mod prober;
mod resolve;
pub mod tcp;
mod tls;

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::account::Metrics;
use crate::capacity::Capacity;
use crate::dial::ConnectFailure;
use crate::plan::{CheckKind, Plan, PoolPlan};
use crate::pool::{Roster, ServerId};
use answers::{Answers, ask_ahead};
use prober::{CheckPlan, Failure, Prober, of_file};
use resolve::Resolver;

/// After so long without one a shortage is over. At a limit that is just reached some checks can be made and some not.
const CALM: Duration = Duration::from_secs(60);

/// How long a plan waits for its new names before it is put in force; most answer in a part of it, and nobody who
/// reloads should wait for the rest.
const FORESIGHT: Duration = Duration::from_secs(1);

/// The probers of a pool; one that is dropped ends, and nothing of it is left.
#[derive(Default)]
struct Probers {
    running: HashMap<ServerId, AbortOnDropHandle<()>>,
    /// How they check, and how many of them at once.
    by: Option<(CheckPlan, Arc<Semaphore>)>,
}

impl Probers {
    /// Those who check otherwise than so end.
    fn check_by(&mut self, plan: &CheckPlan) -> Arc<Semaphore> {
        if let Some((by, turns)) = &self.by
            && by == plan
        {
            return Arc::clone(turns);
        }
        self.running.clear();
        let turns = Arc::new(Semaphore::new(plan.health.concurrency));
        self.by = Some((plan.clone(), Arc::clone(&turns)));
        turns
    }
}

/// What all checks share.
pub struct Checks {
    /// How many may be under way at once, over all pools: each needs a descriptor.
    turns: Arc<Capacity>,
    resolver: Resolver,
    metrics: Arc<Metrics>,
    roster: Arc<Roster>,
    /// When the first beat was.
    begun: Instant,
    /// Probers started so far; spreads their checks.
    started: AtomicU64,
    /// When a check could last not be made, so that a shortage is said once and not for every check. A std mutex, taken
    /// for a line.
    short: Mutex<Option<Instant>>,
}

/// The pools that are tended: those of the plan in force.
pub struct Probing {
    checks: Arc<Checks>,
    pools: HashMap<Arc<str>, Tended>,
}

/// Where a pool's task learns of another plan for it, and that task.
type Tended = (watch::Sender<Arc<PoolPlan>>, AbortOnDropHandle<()>);

impl Probing {
    /// Tends no pool yet.
    #[must_use]
    pub fn new(checks: Checks) -> Self {
        Self {
            checks: Arc::new(checks),
            pools: HashMap::new(),
        }
    }

    /// Asks where the names are that the next plan brings in, so that it begins with the answers, and its sessions do not
    /// find a pool that is empty for no reason of the file's. It waits for a second at most, and changes nothing else.
    pub async fn foresee(&self, next: &Plan, now: &Plan) {
        ask_ahead(next, now, &self.checks.resolver, Instant::now() + FORESIGHT).await;
    }

    /// So many checks, at least one, and so many lookups of host names may be under way at once. To be called within a
    /// runtime.
    pub fn limit(&self, concurrency: usize, lookups: usize) {
        self.checks.turns.resize(Some(concurrency));
        self.checks.resolver.resize(lookups);
    }

    /// Tends the pools of this plan and no others. What goes on in a pool that stays goes on: its names are asked for
    /// when that is due, and a server whose checks are as before is checked when that is due. It lets other tasks run in
    /// between, for there may be very many pools that change.
    pub async fn adopt(&mut self, plan: &Plan) {
        let is_gone = |name: &&Arc<str>| plan.pool(name).is_none();
        let gone: Vec<_> = self.pools.keys().filter(is_gone).map(Arc::clone).collect();
        let mut changes = 0_usize;
        for name in gone {
            self.pools.remove(&name);
            pause(&mut changes).await;
        }
        for pool in &plan.pools {
            match self.pools.get(pool.pool.name()) {
                Some((tended, _)) if Arc::ptr_eq(&tended.borrow(), pool) => continue,
                Some((tended, _)) => drop(tended.send_replace(Arc::clone(pool))),
                None => {
                    let (tended, coming) = watch::channel(Arc::clone(pool));
                    let tending = tokio::spawn(Arc::clone(&self.checks).tend(coming));
                    let tending = (tended, AbortOnDropHandle::new(tending));
                    self.pools.insert(Arc::clone(pool.pool.name()), tending);
                }
            }
            pause(&mut changes).await;
        }
    }
}

/// Lets the tasks that were woken run, after every few changes.
async fn pause(changes: &mut usize) {
    const AT_ONCE: usize = 64;
    *changes += 1;
    if changes.is_multiple_of(AT_ONCE) {
        yield_now().await;
    }
}

impl Checks {
    /// One check and one lookup at once, until a plan is adopted.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, roster: Arc<Roster>) -> Self {
        Self {
            turns: Capacity::new(Some(1)),
            resolver: Resolver::system(1),
            metrics,
            roster,
            begun: Instant::now(),
            started: AtomicU64::new(1),
            short: Mutex::default(),
        }
    }

    /// Tends a pool for as long as it is polled: names are resolved anew, servers checked. Dropping it ends all of it.
    async fn tend(self: Arc<Self>, mut pools: watch::Receiver<Arc<PoolPlan>>) {
        let mut pool = Arc::clone(&pools.borrow_and_update());
        let mut answers = Answers::new();
        let mut probers = Probers::default();
        answers.adopt(&pool);
        // Those given by address first: a resolver may take its time.
        self.run_probers(&pool, &mut probers);
        loop {
            let is_to_do = tokio::select! {
                biased; // what is said of a name goes to the plan in force
                changed = pools.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    pool = Arc::clone(&pools.borrow_and_update());
                    answers.adopt(&pool);
                    true
                }
                is_to_do = answers.step(&pool, &self.resolver, &self.roster), if pool.has_names() => is_to_do,
            };
            if is_to_do {
                self.run_probers(&pool, &mut probers);
            }
        }
    }

    /// One prober for each server there is, none for those that are gone.
    fn run_probers(self: &Arc<Self>, pool: &PoolPlan, probers: &mut Probers) {
        let plan = CheckPlan::of(pool);
        let turns = probers.check_by(&plan);
        let servers = pool.pool.servers();
        let wanted: HashSet<ServerId> = servers.iter().map(|server| server.id()).collect();
        probers.running.retain(|id, _| wanted.contains(id));
        for server in servers.iter() {
            let series = self.metrics.server(pool.pool.name(), server);
            if !matches!(pool.health.check, Some(CheckKind::Tls(_))) {
                series.clear_certificate_expiry();
            }
            let runs = probers.running.contains_key(&server.id());
            if let (Some(kind), false) = (pool.health.check.clone(), runs) {
                let prober = Prober::new(kind, plan.clone(), Arc::clone(server), series);
                let name = Arc::clone(pool.pool.name());
                let running = tokio::spawn(Arc::clone(self).probe(name, prober, Arc::clone(&turns)));
                probers.running.insert(server.id(), AbortOnDropHandle::new(running));
            }
        }
    }

    /// Checks one server for ever, unless it is disabled. Checks of one server never overlap. `turns`: of its pool.
    async fn probe(self: Arc<Self>, pool: Arc<str>, prober: Prober, turns: Arc<Semaphore>) {
        let number = self.started.fetch_add(1, Relaxed);
        let mut first = Some(number);
        let mut next = Instant::now();
        prober.doubt();
        loop {
            // Made before the look, so that nothing in between is missed.
            let steered = prober.server.steered();
            if prober.server.is_disabled() {
                steered.await;
                prober.doubt();
                next = Instant::now();
                continue;
            }
            tokio::select! {
                () = steered => {}
                began = contained(self.check(&pool, &prober, &turns, next)) => {
                    let interval = prober.interval();
                    let gap = first.take().map_or_else(|| jittered(interval), |number| first_gap(number, interval));
                    next = began + gap;
                }
            }
        }
    }

    /// Checks once, when it is time and there is room; when that began.
    async fn check(&self, pool: &str, prober: &Prober, turns: &Semaphore, when: Instant) -> Instant {
        sleep_until(self.on_the_beat(when)).await;
        let turn = (turns.acquire().await, self.turns.acquire().await);
        let began = Instant::now();
        let checked = prober.check().await;
        drop(turn);
        if !self.falls_short(&checked) {
            prober.take_in(pool, checked);
        }
        began
    }

    /// The next beat. Checks that are due in the same hundredth of a second start together: to wake up for each of a
    /// thousand a second costs a quarter of what they do.
    fn on_the_beat(&self, at: Instant) -> Instant {
        const BEAT: u128 = Duration::from_millis(10).as_nanos();
        let behind = at.saturating_duration_since(self.begun).as_nanos() % BEAT;
        let wait = u64::try_from((BEAT - behind) % BEAT).unwrap_or(0); // less than a beat
        at + Duration::from_nanos(wait)
    }

    /// Whether the check could not be made for a shortage of our own, of which a server knows nothing.
    fn falls_short(&self, checked: &Result<(), Failure>) -> bool {
        let Err(Failure::Io(error)) = checked else { return false };
        if !ConnectFailure::of(error).is_our_shortage() {
            return false;
        }
        let now = Instant::now();
        let last = self.short.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if last.is_none_or(|last| now >= last + CALM) {
            tracing::warn!(%error, "cannot check servers, for a shortage of our own");
        }
        true
    }
}

/// A check whose panic, a fault of one check, is not the end of those that follow; when it began, or when it panicked.
async fn contained(check: impl Future<Output = Instant>) -> Instant {
    let mut check = pin!(check);
    poll_fn(|cx| {
        // It is not polled again, and what it shares with others is whole at every moment.
        let polled = catch_unwind(AssertUnwindSafe(|| check.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Instant::now()))
    })
    .await
}

/// The first check comes at once; the second after a part of the interval that differs from prober to prober, so that
/// later ones are spread. Multiples of the golden ratio fill a circle evenly, however many there will be.
fn first_gap(number: u64, interval: Duration) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    interval.mul_f64((number as f64 * GOLDEN).fract())
}

/// 10 % more or less, so that what once met does not meet for ever.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests;
