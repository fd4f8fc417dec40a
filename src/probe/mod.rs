//! Health checks: timers and sockets here, the machine that judges in [`crate::pool::health`].
//!
//! Every pool has one task that tends it: it resolves names, and runs one prober for each server there is. A reload
//! changes what it tends, and lets it go on.

mod answers;
mod resolve;
pub mod tcp;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::account::{CheckResult, Metrics, ServerSeries};
use crate::dial::ConnectFailure;
use crate::plan::{CheckKind, HealthPlan, Plan, PoolPlan};
use crate::pool::health::{Checked, Verdict};
use crate::pool::{Roster, Server, ServerId};
use answers::Answers;
use resolve::Resolver;

/// The probers of a pool; one that is dropped ends, and nothing of it is left.
type Probers = HashMap<ServerId, (HealthPlan, AbortOnDropHandle<()>)>;

/// What all checks share.
pub struct Checks {
    /// How many may be under way at once, over all pools: each needs a descriptor.
    turns: Semaphore,
    resolver: Resolver,
    metrics: Arc<Metrics>,
    roster: Arc<Roster>,
    /// Probers started so far; spreads their checks.
    started: AtomicU64,
    /// Whether the latest check could not be made, so that a shortage is said once and not for every check.
    is_short: AtomicBool,
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

    /// Tends the pools of this plan and no others. What goes on in a pool that stays goes on: its names are asked for
    /// when that is due, and a server whose checks are as before is checked when that is due. To be called within a
    /// runtime.
    pub fn adopt(&mut self, plan: &Plan) {
        self.pools
            .retain(|name, _| plan.pools.iter().any(|pool| pool.pool.name() == name));
        for pool in &plan.pools {
            match self.pools.get(pool.pool.name()) {
                Some((tended, _)) => drop(tended.send_replace(Arc::clone(pool))),
                None => {
                    let (tended, coming) = watch::channel(Arc::clone(pool));
                    let tending = tokio::spawn(Arc::clone(&self.checks).tend(coming));
                    let tending = (tended, AbortOnDropHandle::new(tending));
                    self.pools.insert(Arc::clone(pool.pool.name()), tending);
                }
            }
        }
    }
}

impl Checks {
    /// `concurrency`: checks under way at once, at least one.
    #[must_use]
    pub fn new(concurrency: usize, metrics: Arc<Metrics>, roster: Arc<Roster>) -> Self {
        Self {
            turns: Semaphore::new(concurrency.max(1)),
            resolver: Resolver::system(),
            metrics,
            roster,
            started: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        }
    }

    /// Tends a pool for as long as it is polled: names are resolved anew, servers checked. Dropping it ends all of it.
    async fn tend(self: Arc<Self>, mut pools: watch::Receiver<Arc<PoolPlan>>) {
        let mut answers = Answers::default();
        let mut probers = Probers::new();
        let mut renewal = Instant::now();
        loop {
            let pool = Arc::clone(&pools.borrow_and_update());
            // Those given by address first: a resolver may take its time.
            self.run_probers(&pool, &mut probers);
            if answers.lacks_some(&pool) {
                renewal = Instant::now();
            }
            tokio::select! {
                changed = pools.changed() => if changed.is_err() { return },
                () = self.renew(&mut answers, &pool, renewal), if pool.has_names() => {
                    pool.pool.replace_servers(answers.servers(&pool, &self.roster));
                    pool.pool.mark_resolved();
                    renewal = Instant::now() + pool.resolve_interval;
                }
            }
        }
    }

    /// Cancel safe: what has been asked stays asked.
    async fn renew(&self, answers: &mut Answers, pool: &PoolPlan, when: Instant) {
        sleep_until(when).await;
        answers.renew(pool, &self.resolver).await;
    }

    /// One prober for each server there is, none for those that are gone.
    fn run_probers(self: &Arc<Self>, pool: &PoolPlan, probers: &mut Probers) {
        let servers = pool.pool.servers();
        let is_wanted = |id: &ServerId, health: &HealthPlan| {
            *health == pool.health && servers.iter().any(|server| server.id() == *id)
        };
        probers.retain(|id, (health, _)| is_wanted(id, health));
        for server in servers.iter() {
            let series = self.metrics.server(pool.pool.name(), server);
            if let (Some(kind), false) = (pool.health.check.clone(), probers.contains_key(&server.id())) {
                let prober = Prober {
                    kind,
                    health: pool.health.clone(),
                    server: Arc::clone(server),
                    series,
                };
                let name = Arc::clone(pool.pool.name());
                let running = tokio::spawn(Arc::clone(self).probe(name, prober));
                let running = AbortOnDropHandle::new(running);
                probers.insert(server.id(), (pool.health.clone(), running));
            }
        }
    }

    /// Checks one server for ever. Checks of one server never overlap.
    async fn probe(self: Arc<Self>, pool: Arc<str>, prober: Prober) {
        let interval = prober.health.interval;
        let mut next = Instant::now();
        let mut gap = first_gap(self.started.fetch_add(1, Relaxed), interval);
        loop {
            sleep_until(next).await;
            let turn = self.turns.acquire().await;
            next = Instant::now() + gap;
            gap = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
            let checked = timeout(prober.health.timeout, prober.check()).await;
            drop(turn);
            let checked = checked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            if !self.falls_short(&checked) {
                prober.take_in(&pool, checked);
            }
        }
    }

    /// Whether the check could not be made for a shortage of our own, of which a server knows nothing.
    fn falls_short(&self, checked: &io::Result<()>) -> bool {
        let shortage = checked
            .as_ref()
            .err()
            .filter(|error| ConnectFailure::of(error).is_our_shortage());
        let is_news = self.is_short.swap(shortage.is_some(), Relaxed) != shortage.is_some();
        if let (Some(error), true) = (shortage, is_news) {
            tracing::warn!(%error, "cannot check servers, for a shortage of our own");
        }
        shortage.is_some()
    }
}

/// The first check comes at once; the second after a part of the interval that differs from prober to prober, so that
/// later ones are spread. Multiples of the golden ratio fill a circle evenly, however many there will be.
fn first_gap(number: u64, interval: Duration) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    interval.mul_f64((number as f64 * GOLDEN).fract())
}

/// One server and how it is checked.
struct Prober {
    kind: CheckKind,
    health: HealthPlan,
    server: Arc<Server>,
    series: Arc<ServerSeries>,
}

impl Prober {
    async fn check(&self) -> io::Result<()> {
        match self.kind {
            CheckKind::Tcp => tcp::check(self.server.spec().address).await,
            CheckKind::Tls(_) | CheckKind::Postgres(_) => unreachable!("the configuration has none yet"),
        }
    }

    /// Tells the server, the metrics and, if that changes something, the log.
    fn take_in(&self, pool: &str, checked: io::Result<()>) {
        let result = match &checked {
            Ok(()) => CheckResult::Pass,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => CheckResult::Timeout,
            Err(_) => CheckResult::Fail,
        };
        self.series.checked(result);
        let verdict = match &checked {
            Ok(()) => Verdict::Pass,
            Err(error) => Verdict::Fail(error.to_string().into()),
        };
        let was_ejected = self.server.is_ejected();
        let changed = self.server.record_check(&verdict, self.health.thresholds);
        let server = &self.server.spec().label;
        if was_ejected && !self.server.is_ejected() {
            tracing::info!(pool, %server, "server is back");
        }
        let Some(state) = changed else { return };
        self.series.changed(state == Checked::Up);
        match checked {
            Ok(()) => tracing::info!(pool, %server, "server is up"),
            Err(error) => tracing::warn!(pool, %server, reason = %error, "server is down"),
        }
    }
}

#[cfg(test)]
mod tests;
