//! The rings, and how samples are made of counters: plain values, without a clock of their own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use super::SAMPLES_MAX;
use crate::account::{Ending, TotalCounts};
use crate::plan::Plan;

/// Sessions that have ended, indexed by the discriminant of [`Ending`].
pub type EndingCounts = [u64; Ending::ALL.len()];

const MINUTES_MAX: usize = 60;

const SAMPLES_A_MINUTE: u64 = 60;

/// What was read at one moment: the number of open sessions, and the counters, which count since the start.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) at: SystemTime,
    /// Open sessions.
    pub(super) sessions: usize,
    pub(super) opened: u64,
    pub(super) totals: TotalCounts,
    /// The readings of the chosen pools (those that have samples of their own), in the order of
    /// [`Recorder::past_pools`].
    pub(super) pools: Vec<PoolReading>,
}

/// What was read of a pool at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolReading {
    pub(super) counts: TotalCounts,
    /// Open sessions.
    pub(super) sessions: u32,
}

/// What has changed since the previous sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The end of its last second.
    pub at: SystemTime,
    /// The number of seconds that it covers: one, unless the process was held up.
    pub seconds: u64,
    /// Of the whole process.
    pub totals: TotalsSample,
    /// The samples of the chosen pools.
    pub pools: Vec<(Arc<str>, PoolSample)>,
}

/// The sample of the whole process, for one second, or for all the seconds of a [`Sample`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TotalsSample {
    /// Open sessions at its end.
    pub sessions: u32,
    /// New sessions.
    pub opened: u32,
    /// Bytes from clients.
    pub bytes_up: u64,
    /// Bytes from servers.
    pub bytes_down: u64,
    /// The 99th percentile of the time to connect to servers, in seconds; `None`: there was no connect, or this is one
    /// of several seconds that were recorded at once, and not the last of them.
    pub connect_p99: Option<f32>,
    /// Sessions that ended, indexed by the discriminant of [`Ending`].
    pub endings: [u32; Ending::ALL.len()],
}

/// The sample of a pool, for one second, or for all the seconds of a [`Sample`]. Bytes are floating-point numbers,
/// which take half the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolSample {
    /// Open sessions on the pool's servers, at the end of the sample.
    pub sessions: u32,
    /// New sessions.
    pub opened: u32,
    /// Sessions that failed: [`Ending::is_failure`].
    pub failed: u32,
    /// Bytes from clients.
    pub bytes_up: f32,
    /// Bytes from servers.
    pub bytes_down: f32,
    /// The 99th percentile of the time to connect to its servers, in seconds; `None`: as in
    /// [`TotalsSample::connect_p99`].
    pub connect_p99: Option<f32>,
}

/// A chosen pool, and its samples.
#[derive(Debug)]
pub struct PastPool {
    /// Its name.
    pub name: Arc<str>,
    /// Oldest first. The last one belongs to the last sample of the process.
    pub samples: VecDeque<PoolSample>,
    /// The latest reading of the pool; `None`: there has been none since it was chosen.
    latest: Option<PoolReading>,
}

/// The rings of the process and of the chosen pools.
#[derive(Debug, Default)]
pub struct Recorder {
    latest: Option<Reading>,
    totals: VecDeque<TotalsSample>,
    pools: Vec<PastPool>,
    /// The plan that the pools were chosen from.
    plan: Weak<Plan>,
    /// How many seconds have been recorded since the start.
    seconds_recorded: u64,
    /// The counts of endings since the start, as they were at the end of each of the last minutes; oldest first.
    minutes: VecDeque<EndingCounts>,
}

impl Recorder {
    /// When the latest sample ended; `None`: there is none.
    #[must_use]
    pub fn at(&self) -> Option<SystemTime> {
        let latest = self.latest.as_ref().filter(|_| !self.totals.is_empty());
        latest.map(|reading| reading.at)
    }

    /// The samples of the process, oldest first.
    #[must_use]
    pub fn totals(&self) -> &VecDeque<TotalsSample> {
        &self.totals
    }

    /// The chosen pools with their samples, in the order of the plan.
    #[must_use]
    pub fn past_pools(&self) -> &[PastPool] {
        &self.pools
    }

    /// The endings of the last minute.
    #[must_use]
    pub fn endings_of_minute(&self) -> EndingCounts {
        let mut sum = [0; Ending::ALL.len()];
        for sample in self.totals.iter().rev().take(SAMPLES_A_MINUTE as usize) {
            sum.iter_mut()
                .zip(sample.endings)
                .for_each(|(sum, count)| *sum += u64::from(count));
        }
        sum
    }

    /// The endings of the last 59 to 60 minutes, or since the start if that was less than an hour ago.
    #[must_use]
    pub fn endings_of_hour(&self) -> EndingCounts {
        let mut endings = self.endings();
        if self.minutes.len() == MINUTES_MAX {
            endings
                .iter_mut()
                .zip(self.minutes[0])
                .for_each(|(sum, before)| *sum -= before);
        }
        endings
    }

    /// The endings since the start.
    #[must_use]
    pub fn endings(&self) -> EndingCounts {
        self.latest
            .as_ref()
            .map_or([0; Ending::ALL.len()], |latest| latest.totals.endings)
    }

    /// The names of the chosen pools.
    pub(super) fn pool_names(&self) -> impl Iterator<Item = &Arc<str>> + Clone {
        self.pools.iter().map(|pool| &pool.name)
    }

    /// Whether the pools were chosen from another plan.
    pub(super) fn is_out_of_date(&self, plan: &Arc<Plan>) -> bool {
        !std::ptr::eq(self.plan.as_ptr(), Arc::as_ptr(plan))
    }

    /// Sets the pools that have samples. A pool that stays chosen keeps its samples.
    pub(super) fn choose_pools(&mut self, plan: &Arc<Plan>, names: Vec<Arc<str>>) {
        self.plan = Arc::downgrade(plan);
        let mut before: HashMap<_, _> = self
            .pools
            .drain(..)
            .map(|pool| (Arc::clone(&pool.name), pool))
            .collect();
        let pool = |name: Arc<str>| {
            before.remove(&name).unwrap_or(PastPool {
                name,
                samples: VecDeque::new(),
                latest: None,
            })
        };
        self.pools = names.into_iter().map(pool).collect();
    }

    /// Adds and returns what has changed since the last reading, which was `seconds` ago; `None`: this is the first
    /// reading. In the rings, counts and the change of the open sessions are spread evenly over these seconds, and the
    /// quantile is recorded for the last one.
    pub(super) fn record(&mut self, mut now: Reading, seconds: u64) -> Option<Sample> {
        let readings = std::mem::take(&mut now.pools);
        let record_pool =
            |(pool, reading): (&mut PastPool, _)| Some((Arc::clone(&pool.name), pool.record(reading, seconds)?));
        let pools = self.pools.iter_mut().zip(readings).filter_map(record_pool).collect();
        let before = self.latest.replace(now)?;
        let now = self.latest.as_ref()?;
        let totals = TotalsSample::between(&before, now);
        for second in last_of(seconds, SAMPLES_MAX) {
            push(
                &mut self.totals,
                totals.second(clamp(before.sessions as u64), &second),
                SAMPLES_MAX,
            );
        }
        for second in last_of(seconds, MINUTES_MAX * SAMPLES_A_MINUTE as usize) {
            self.seconds_recorded += 1;
            if self.seconds_recorded.is_multiple_of(SAMPLES_A_MINUTE) {
                let ended = |ending: usize| before.totals.endings[ending] + second.until(totals.endings[ending].into());
                push(&mut self.minutes, std::array::from_fn(ended), MINUTES_MAX);
            }
        }
        Some(Sample {
            at: now.at,
            seconds,
            totals,
            pools,
        })
    }
}

/// One of several seconds that are recorded at once.
struct Second {
    /// The first one is 1.
    number: u64,
    /// How many seconds are recorded at once.
    total: u64,
}

/// The last `max` of these seconds, or all if there are fewer.
fn last_of(seconds: u64, max: usize) -> impl Iterator<Item = Second> {
    let skipped = seconds.saturating_sub(max as u64);
    (skipped + 1..=seconds).map(move |number| Second { number, total: seconds })
}

impl Second {
    /// The part of `count` up to the end of this second. `count` is for all the seconds together.
    fn until(&self, count: u64) -> u64 {
        (u128::from(count) * u128::from(self.number) / u128::from(self.total)) as u64
    }

    /// The share of this second in `count`, which is for all the seconds together. The shares add up to `count`.
    fn share(&self, count: u64) -> u64 {
        let before = Self {
            number: self.number - 1,
            ..*self
        };
        self.until(count) - before.until(count)
    }

    /// The sessions at the end of this second, given their number before the first and after the last one.
    fn sessions(&self, before: u32, after: u32) -> u32 {
        if after >= before {
            before + clamp(self.until((after - before).into()))
        } else {
            before - clamp(self.until((before - after).into()))
        }
    }

    fn is_last(&self) -> bool {
        self.number == self.total
    }
}

impl PastPool {
    /// How its sessions have ended since the start.
    #[must_use]
    pub fn endings(&self) -> EndingCounts {
        let latest = self.latest.as_ref();
        latest.map_or([0; Ending::ALL.len()], |reading| reading.counts.endings)
    }

    fn record(&mut self, now: PoolReading, seconds: u64) -> Option<PoolSample> {
        let before = self.latest.replace(now)?;
        let now = self.latest.as_ref()?;
        let since = |of: fn(&TotalCounts) -> u64| of(&now.counts).saturating_sub(of(&before.counts));
        let ended = since(TotalCounts::ended);
        let connects = now.counts.connects.since(&before.counts.connects);
        let sample = PoolSample {
            sessions: now.sessions,
            // New sessions: those that have ended, plus the growth of the open ones.
            opened: clamp((ended + u64::from(now.sessions)).saturating_sub(before.sessions.into())),
            failed: clamp(since(TotalCounts::failed)),
            bytes_up: since(|counts| counts.bytes_up) as f32,
            bytes_down: since(|counts| counts.bytes_down) as f32,
            connect_p99: connects.quantile(0.99).map(|seconds| seconds as f32),
        };
        for second in last_of(seconds, SAMPLES_MAX) {
            push(&mut self.samples, sample.second(before.sessions, &second), SAMPLES_MAX);
        }
        Some(sample)
    }
}

impl PoolSample {
    /// The part of this sample for one of its seconds.
    fn second(&self, sessions_before: u32, second: &Second) -> Self {
        let count = |count: u32| clamp(second.share(count.into()));
        let bytes = |bytes: f32| bytes / second.total as f32;
        Self {
            sessions: second.sessions(sessions_before, self.sessions),
            opened: count(self.opened),
            failed: count(self.failed),
            bytes_up: bytes(self.bytes_up),
            bytes_down: bytes(self.bytes_down),
            connect_p99: self.connect_p99.filter(|_| second.is_last()),
        }
    }
}

impl TotalsSample {
    fn between(before: &Reading, now: &Reading) -> Self {
        let (totals, earlier) = (&now.totals, &before.totals);
        let connects = totals.connects.since(&earlier.connects);
        Self {
            sessions: clamp(now.sessions as u64),
            opened: clamp(now.opened - before.opened),
            bytes_up: totals.bytes_up - earlier.bytes_up,
            bytes_down: totals.bytes_down - earlier.bytes_down,
            connect_p99: connects.quantile(0.99).map(|seconds| seconds as f32),
            endings: std::array::from_fn(|ending| clamp(totals.endings[ending] - earlier.endings[ending])),
        }
    }

    /// The part of this sample for one of its seconds.
    fn second(&self, sessions_before: u32, second: &Second) -> Self {
        let count = |count: u32| clamp(second.share(count.into()));
        Self {
            sessions: second.sessions(sessions_before, self.sessions),
            opened: count(self.opened),
            bytes_up: second.share(self.bytes_up),
            bytes_down: second.share(self.bytes_down),
            connect_p99: self.connect_p99.filter(|_| second.is_last()),
            endings: self.endings.map(count),
        }
    }
}

fn clamp(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn push<T>(ring: &mut VecDeque<T>, item: T, len_max: usize) {
    if ring.len() == len_max {
        ring.pop_front();
    }
    ring.push_back(item);
}

#[cfg(test)]
mod tests;
