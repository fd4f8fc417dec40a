//! The recent past, in rings that do not grow: a sample of each second of the last 15 minutes, and the endings of
//! sessions in each minute of the last hour.
//!
//! At most [`POOLS_MAX`] pools have rings of their own: those with the most sessions since the start. All rings take
//! less than 2 MiB together.

mod recorder;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, MutexGuard};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::account::{Ledger, Metrics, TotalCounts, sessions_opened};
use crate::capacity::ListenerLimits;
use crate::live::{InForce, Live, LivePool};
pub use recorder::{EndingCounts, PastPool, PoolSample, Recorder, Sample, TotalsSample};
use recorder::{PoolReading, Reading};

/// The number of samples that are kept: one a second.
pub const SAMPLES_MAX: usize = 15 * 60;

/// The most pools that have samples of their own.
pub const POOLS_MAX: usize = 64;

const INTERVAL: Duration = Duration::from_secs(1);

/// The time from the start of [`History::run`] to the first sample. The workers start at about the same time, and from
/// then on publish the bytes of their sessions every second. So each sample is taken in the middle between two
/// publications: it contains the bytes of exactly one second, even if it is taken a little late.
const PHASE: Duration = Duration::from_millis(500);

/// A second counts as ended if a reading is taken at most this long before its end. A tick may come a little before the
/// end that [`SecondsClock`] has computed, because this clock is started just after the ticks.
const EARLY_MAX: Duration = Duration::from_millis(50);

/// After this many samples, the pools that have samples of their own are chosen again.
const SAMPLES_PER_CHOICE: u64 = 60;

/// The inputs of the samples.
pub struct HistoryInputs {
    /// The pools in force, with the sessions of their servers.
    pub live: Arc<Live>,
    /// The open sessions of listeners.
    pub limits: Arc<ListenerLimits>,
    /// The totals of workers.
    pub ledgers: Vec<Arc<Ledger>>,
    /// The counters of pools.
    pub metrics: Arc<Metrics>,
}

/// Holds the samples.
pub struct History {
    // A blocking mutex: held while a sample is added, and while the rings are copied for a request to the admin API.
    recorder: Mutex<Recorder>,
    latest: watch::Sender<Option<Arc<Sample>>>,
}

impl History {
    /// A history without samples.
    #[must_use]
    pub fn new() -> Self {
        Self {
            recorder: Mutex::default(),
            latest: watch::Sender::new(None),
        }
    }

    /// The rings. Holds a lock: not to be kept across an await.
    pub fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock()
    }

    /// The newest sample; `None`: there is none yet. The receiver is notified of each new sample.
    #[must_use]
    pub fn latest(&self) -> watch::Receiver<Option<Arc<Sample>>> {
        self.latest.subscribe()
    }

    /// Takes a sample every second for as long as it is polled.
    pub async fn run(self: Arc<Self>, inputs: HistoryInputs) {
        let mut ticks = interval_at(Instant::now() + PHASE, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut seconds = SecondsClock::with_first_end(since_boot() + PHASE);
        for count in 0.. {
            ticks.tick().await;
            let in_force = inputs.live.in_force();
            let mut recorder = self.recorder();
            if count % SAMPLES_PER_CHOICE == 0 || recorder.is_out_of_date(&in_force.plan) {
                recorder.choose_pools(&in_force.plan, busiest(&in_force, &inputs.metrics));
            }
            let reading = inputs.read(&in_force, recorder.pool_names());
            let sample = recorder.record(reading, seconds.advance(since_boot()));
            drop(recorder);
            if let Some(sample) = sample {
                self.latest.send_replace(Some(Arc::new(sample)));
            }
        }
    }
}

/// The time since the machine was started, including the time in which it was suspended.
fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default() // it is never negative
}

/// Counts the seconds between readings, including those in which the process or the machine stood still.
struct SecondsClock {
    /// The end of the last second that was counted.
    end: Duration,
}

impl SecondsClock {
    /// A clock whose first second ends at this time.
    fn with_first_end(first_end: Duration) -> Self {
        Self {
            end: first_end.saturating_sub(INTERVAL),
        }
    }

    /// The number of seconds that have ended since the last call, at least one. `end` grows by whole seconds: a late
    /// tick does not delay the ends of the seconds that follow.
    fn advance(&mut self, now: Duration) -> u64 {
        let seconds = (now.saturating_sub(self.end) + EARLY_MAX).as_secs().max(1);
        self.end += Duration::from_secs(seconds);
        seconds
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl HistoryInputs {
    fn read<'a>(&self, in_force: &InForce, pool_names: impl Iterator<Item = &'a Arc<str>> + Clone) -> Reading {
        let mut totals = TotalCounts::default();
        self.ledgers.iter().for_each(|ledger| totals.add(&ledger.totals()));
        let counts = self.metrics.pool_counts(pool_names.clone());
        let pools = pool_names.zip(counts).map(|(name, counts)| PoolReading {
            counts: counts.unwrap_or_default(),
            sessions: in_force.pool(name).map_or(0, |pool| sessions(pool)),
        });
        Reading {
            at: SystemTime::now(),
            sessions: self.limits.sessions().iter().map(|(_, sessions)| sessions).sum(),
            opened: sessions_opened(),
            totals,
            pools: pools.collect(),
        }
    }
}

/// The names of the pools with the most sessions since the start, at most [`POOLS_MAX`], in the order of the plan.
fn busiest(in_force: &InForce, metrics: &Metrics) -> Vec<Arc<str>> {
    let all: Vec<_> = in_force.pools.iter().map(|pool| Arc::clone(pool.name())).collect();
    if all.len() <= POOLS_MAX {
        return all;
    }
    let counts = metrics.pool_counts(&all);
    let activity = |(index, pool): (usize, &Arc<LivePool>)| {
        let ended = counts[index].as_ref().map_or(0, TotalCounts::ended);
        (std::cmp::Reverse(ended + u64::from(sessions(pool))), index)
    };
    let mut ranked: Vec<_> = in_force.pools.iter().enumerate().map(activity).collect();
    ranked.sort_unstable();
    ranked.truncate(POOLS_MAX);
    ranked.sort_unstable_by_key(|(_, index)| *index); // back to the order of the plan
    ranked.into_iter().map(|(_, index)| Arc::clone(&all[index])).collect()
}

/// The open sessions on the servers of a pool, including servers that have left it. A sample computes the number of new
/// sessions from this number and that of the ended sessions. So an open session must not vanish from this number.
///
/// Several servers of a pool may have one address. So the sessions on each server alone are added up, and not those at
/// its address. If the pool was renamed, servers that left under its former name are excluded: their sessions will be
/// counted as ended under that name.
fn sessions(pool: &LivePool) -> u32 {
    let departed = pool.departed().into_iter().filter(|departed| !departed.left_with_pool);
    let departed = departed.filter_map(|departed| departed.server.upgrade());
    let present = pool.servers();
    let present = present.iter().map(|server| server.own_live());
    present.chain(departed.map(|server| server.own_live())).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::addr::ClientAddr;
    use crate::plan::Plan;

    #[test]
    fn a_late_tick_counts_one_second_and_a_stall_counts_all_of_its_seconds() {
        let mut clock = SecondsClock::with_first_end(Duration::from_millis(1_500));
        // The tick at 4,400 is late, that at 5,499 is 1 ms early, and after it the process stalls for 8 s.
        let at = [1_500, 2_501, 4_400, 4_501, 5_499, 13_700, 14_501, 15_501];
        let seconds = at.map(|ms| clock.advance(Duration::from_millis(ms)));
        assert_eq!(seconds, [1, 1, 1, 1, 1, 8, 1, 1]);
    }

    #[test]
    fn a_session_is_counted_once_after_its_server_got_another_name() {
        let plan = |name: &str| -> Plan {
            let text = format!(
                "[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\n\
                 servers = [{{ address = \"10.0.0.1:1\", name = \"{name}\" }}]"
            );
            crate::config::read("a.toml", &text).ok().unwrap().plan
        };
        let live = Live::new(plan("a"), Vec::new());
        let open = || live.in_force().pool("p").map(|pool| sessions(pool));
        let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
        let picked = live.in_force().pool("p").unwrap().pick(client, &[], Instant::now());
        assert_eq!((picked.is_ok(), open()), (true, Some(1)));
        drop(live.apply(live.prepare(plan("b"), HashMap::new())));
        assert_eq!(open(), Some(1), "expected it only on the server of the former name");
        drop(picked);
        assert_eq!(open(), Some(0));
    }
}
