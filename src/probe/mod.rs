//! Health checks: timers and sockets here, the machine that judges in [`crate::pool::health`].
//!
//! Every pool has one task that tends it: it resolves names, and runs one prober for each server there is.

mod answers;
mod resolve;
pub mod tcp;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::account::{CheckResult, Metrics, ServerSeries};
use crate::dial::ConnectFailure;
use crate::plan::{CheckKind, HealthPlan, PoolPlan};
use crate::pool::health::{Checked, Verdict};
use crate::pool::{Server, ServerId};
use answers::Answers;
use resolve::Resolver;

/// The probers of a pool; one that is dropped ends, and nothing of it is left.
type Probers = HashMap<ServerId, AbortOnDropHandle<()>>;

/// What all checks share.
pub struct Checks {
    /// How many may be under way at once, over all pools: each needs a descriptor.
    turns: Semaphore,
    resolver: Resolver,
    metrics: Arc<Metrics>,
    /// Probers started so far; spreads their checks.
    started: AtomicU64,
    /// Whether the latest check could not be made, so that a shortage is said once and not for every check.
    is_short: AtomicBool,
}

impl Checks {
    /// `concurrency`: checks under way at once, at least one.
    #[must_use]
    pub fn new(concurrency: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            turns: Semaphore::new(concurrency.max(1)),
            resolver: Resolver::system(),
            metrics,
            started: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        }
    }

    /// Tends a pool for as long as it is polled: names are resolved anew, servers checked. Dropping it ends all of it.
    pub async fn tend(self: Arc<Self>, pool: Arc<PoolPlan>) {
        let mut answers = Answers::default();
        let mut probers = Probers::new();
        // Those given by address first: a resolver may take its time.
        self.run_probers(&pool, &mut probers);
        if !pool.has_names() {
            return std::future::pending().await; // while the probers run
        }
        loop {
            answers.renew(&pool, &self.resolver).await;
            pool.pool.replace_servers(answers.servers(&pool));
            self.run_probers(&pool, &mut probers);
            sleep(pool.resolve_interval).await;
        }
    }

    /// One prober for each server there is, none for those that are gone.
    fn run_probers(self: &Arc<Self>, pool: &PoolPlan, probers: &mut Probers) {
        let servers = pool.pool.servers();
        probers.retain(|id, _| servers.iter().any(|server| server.id() == *id));
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
                probers.insert(server.id(), AbortOnDropHandle::new(running));
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
