//! What all checks share, and the loop that runs one of them.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::schedule::{Ticks, first_gap, jittered};
use super::shared_probe::{CheckSetup, SharedProbe};
use crate::account::Metrics;
use crate::capacity::Capacity;
use crate::check::{CheckFailure, CheckPass, Probe};
use crate::discover::Resolver;
use crate::error::chain;
use crate::live::Live;
use crate::plan::PoolPlan;
use crate::pool::ServerSpec;
use crate::tls::PoolTls;

/// A shortage (of local ports, file descriptors, processes or memory) is over when no check has failed because of it
/// for this long: while the limit is just reached, some checks can be made and others cannot.
const SHORTAGE_ENDS_AFTER: Duration = Duration::from_secs(60);

/// What all checks share.
pub(super) struct CheckContext {
    /// Permits for checks under way in the process: each check needs a file descriptor. Pools limit their checks, too.
    pub(super) capacity: Arc<Capacity>,
    pub(super) resolver: Resolver,
    pub(super) metrics: Arc<Metrics>,
    pub(super) live: Arc<Live>,
    ticks: Ticks,
    /// The number for the next call of [`Self::check_repeatedly`].
    next_number: AtomicU64,
    /// When a check last failed because of a shortage, so that a shortage is logged once and not for every check. A
    /// blocking mutex, locked for one statement.
    last_shortage: Mutex<Option<Instant>>,
}

impl CheckContext {
    /// Until [`super::HealthMonitor::set_limits`] is called, at most one check and one lookup run at a time.
    pub(super) fn new(metrics: Arc<Metrics>, live: Arc<Live>) -> Self {
        Self {
            capacity: Capacity::new(Some(1)),
            resolver: Resolver::system(1),
            metrics,
            live,
            ticks: Ticks::new(),
            next_number: AtomicU64::new(1),
            last_shortage: Mutex::default(),
        }
    }

    /// Runs a check again and again, except while the server is disabled in all pools that use the check. The runs of a
    /// check never overlap. The gap after the first run depends on the number of the check, so that checks which begin
    /// together are spread over the interval. Ends only by being dropped.
    pub(super) async fn check_repeatedly(self: Arc<Self>, probe: Arc<SharedProbe>) {
        let mut number_for_first_gap = Some(self.next_number.fetch_add(1, Relaxed));
        let mut next = Instant::now();
        loop {
            probe.wait(sleep_until(self.ticks.next(next))).await;
            let began = contain_panic(self.check_once(&probe)).await;
            let began = began.unwrap_or_else(Instant::now);
            let interval = probe.interval();
            let gap = match number_for_first_gap.take() {
                Some(number) => first_gap(number, interval),
                None => jittered(interval),
            };
            next = began + gap;
        }
    }

    /// Waits for a permit of the first pool that uses the check, runs the check, and records the result in each pool
    /// that uses it. A pool in which the server is disabled does not count as a user. Returns when the check began.
    async fn check_once(&self, probe: &SharedProbe) -> Instant {
        let Some(user) = probe.active().into_iter().next() else {
            return Instant::now(); // no pool uses the check now
        };
        let permit = user.capacity.acquire().await;
        let (began, result) = self.run(probe.probe(), probe.setup().timeout()).await;
        drop(permit);
        let took = began.elapsed();
        probe.active().iter().for_each(|user| user.record_duration(took));
        let in_force = self.live.in_force();
        for user in probe.active() {
            let Some(pool) = in_force.pool(&user.pool) else {
                continue;
            };
            for failed_server in user.record(pool, &self.metrics, &result) {
                let awaits_failback = self.live.await_failback(pool.name(), &failed_server);
                if awaits_failback {
                    let (pool, server) = (pool.name(), &failed_server.spec().label);
                    tracing::warn!(%pool, %server, "server awaits failback: it is used again after `acequia server enable`");
                }
            }
        }
        began
    }

    /// Waits for the permits of the check's kind and of the process, then runs the check, for `limit` at most. Returns
    /// when it began, and its result.
    async fn run(&self, probe: &dyn Probe, limit: Duration) -> (Instant, Result<CheckPass, CheckFailure>) {
        // `None` only if the kind has no limit: its semaphore is never closed.
        let of_kind = async { probe.limit()?.acquire().await.ok() };
        let _permits = (of_kind.await, self.capacity.acquire().await);
        let began = Instant::now();
        let result = timeout(limit, probe.run()).await;
        let result = result.unwrap_or_else(|_| Err(probe.timed_out().into()));
        if let Err(CheckFailure::Shortage(error)) = &result {
            self.log_shortage(error);
        }
        (began, result)
    }

    /// To be called when a check has failed because of a shortage. Logs that, unless this shortage was logged before.
    fn log_shortage(&self, error: &io::Error) {
        let now = Instant::now();
        let mut shortage = self.last_shortage.lock();
        let last = shortage.replace(now);
        drop(shortage);
        if last.is_none_or(|last| now >= last + SHORTAGE_ENDS_AFTER) {
            let error = chain(error);
            tracing::warn!(
                error,
                "cannot check servers: out of local ports, file descriptors, processes or memory"
            );
        }
    }
}

/// Checks single servers once, within the limits for all checks.
#[derive(Clone)]
pub struct SingleChecks(pub(super) Arc<CheckContext>);

impl SingleChecks {
    /// Whether a check of this server passes, with the settings of the pool of `plan`. The server need not be in that
    /// pool. `tls`: that of the pool's sessions.
    pub async fn passes(&self, plan: &PoolPlan, spec: &ServerSpec, tls: Option<Arc<PoolTls>>) -> bool {
        let Some(setup) = CheckSetup::for_server(plan, spec, tls) else {
            return false; // the pool has no check
        };
        let probe = setup.probe();
        let checked = contain_panic(self.0.run(&*probe, setup.timeout())).await;
        matches!(checked, Some((_, Ok(_))))
    }
}

/// Runs a check; `None` if it panics. Later checks still run.
async fn contain_panic<T>(check: impl Future<Output = T>) -> Option<T> {
    let mut check = pin!(check);
    poll_fn(|cx| {
        // Unwind safe: the check is not polled again, and what it shares with others is consistent at every moment.
        let polled = catch_unwind(AssertUnwindSafe(|| check.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
    })
    .await
}
