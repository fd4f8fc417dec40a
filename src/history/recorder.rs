//! The rings, and how samples are made of counters: plain values, without a clock of their own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use super::SAMPLES_MAX;
use crate::account::{Ending, PoolCounts, TotalCounts};
use crate::plan::Plan;

/// Sessions that have ended, indexed by the discriminant of [`Ending`].
pub type EndingCounts = [u64; Ending::ALL.len()];

const MINUTES_MAX: usize = 60;

const SAMPLES_A_MINUTE: u64 = 60;

/// What the counters say at one moment. All but the sessions count since the start.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) at: SystemTime,
    /// Open sessions.
    pub(super) sessions: usize,
    pub(super) opened: u64,
    pub(super) totals: TotalCounts,
    /// Of the chosen pools, in their order.
    pub(super) pools: Vec<PoolReading>,
}

/// What the counters of a pool say at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolReading {
    pub(super) counts: PoolCounts,
    /// Open sessions.
    pub(super) sessions: u32,
}

/// One second.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it ended.
    pub at: SystemTime,
    /// Of the whole process.
    pub totals: TotalsSample,
    /// Of the busiest pools.
    pub pools: Vec<(Arc<str>, PoolSample)>,
}

/// One second of the whole process.
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
    /// The 99th percentile of the time to connect to servers, in seconds; `None`: there was no connect.
    pub connect_p99: Option<f32>,
    /// Sessions that ended, indexed by the discriminant of [`Ending`].
    pub endings: [u32; Ending::ALL.len()],
}

/// One second of a pool. Bytes are floating-point numbers, which take half the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolSample {
    /// Open sessions on its servers at its end.
    pub sessions: u32,
    /// New sessions.
    pub opened: u32,
    /// Sessions that failed: [`Ending::is_failure`].
    pub failed: u32,
    /// Bytes from clients.
    pub bytes_up: f32,
    /// Bytes from servers.
    pub bytes_down: f32,
    /// The 99th percentile of the time to connect to its servers, in seconds; `None`: there was no connect.
    pub connect_p99: Option<f32>,
}

/// A chosen pool, and its samples.
#[derive(Debug)]
pub struct PastPool {
    /// Its name.
    pub name: Arc<str>,
    /// Oldest first. The last one belongs to the last sample of the process.
    pub samples: VecDeque<PoolSample>,
    /// `None`: it was chosen after the latest reading.
    before: Option<PoolReading>,
}

/// The rings.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The latest reading.
    before: Option<Reading>,
    totals: VecDeque<TotalsSample>,
    pools: Vec<PastPool>,
    /// The plan that the pools were chosen from.
    plan: Weak<Plan>,
    samples: u64,
    /// The endings since the start, at the end of each minute; oldest first.
    minutes: VecDeque<EndingCounts>,
}

impl Recorder {
    /// When the latest sample ended; `None`: there is none.
    #[must_use]
    pub fn at(&self) -> Option<SystemTime> {
        let latest = self.before.as_ref().filter(|_| !self.totals.is_empty());
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

    /// The endings of the last hour, or since the start.
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
        self.before
            .as_ref()
            .map_or([0; Ending::ALL.len()], |before| before.totals.endings)
    }

    /// The names of the chosen pools.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<str>> + Clone {
        self.pools.iter().map(|pool| &pool.name)
    }

    /// Whether the pools were chosen from another plan.
    pub(super) fn is_out_of_date(&self, plan: &Arc<Plan>) -> bool {
        !std::ptr::eq(self.plan.as_ptr(), Arc::as_ptr(plan))
    }

    /// Sets the pools that have samples. Those that had some before keep them.
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
                before: None,
            })
        };
        self.pools = names.into_iter().map(pool).collect();
    }

    /// Adds what has changed since the last reading as a sample, and returns it. The first reading gives none.
    pub(super) fn record(&mut self, mut now: Reading) -> Option<Sample> {
        let pools = std::mem::take(&mut now.pools);
        let sample = |(pool, now): (&mut PastPool, _)| Some((Arc::clone(&pool.name), pool.record(now)?));
        let pools = self.pools.iter_mut().zip(pools).filter_map(sample).collect();
        let before = self.before.replace(now);
        let (before, now) = (before?, self.before.as_ref()?);
        let totals = TotalsSample::between(&before, now);
        push(&mut self.totals, totals, SAMPLES_MAX);
        self.samples += 1;
        if self.samples.is_multiple_of(SAMPLES_A_MINUTE) {
            push(&mut self.minutes, now.totals.endings, MINUTES_MAX);
        }
        Some(Sample {
            at: now.at,
            totals,
            pools,
        })
    }
}

impl PastPool {
    /// How its sessions have ended since the start.
    #[must_use]
    pub fn endings(&self) -> EndingCounts {
        let latest = self.before.as_ref();
        latest.map_or([0; Ending::ALL.len()], |reading| reading.counts.endings)
    }

    fn record(&mut self, now: PoolReading) -> Option<PoolSample> {
        let before = self.before.replace(now)?;
        let now = self.before.as_ref()?;
        let since = |of: fn(&PoolCounts) -> u64| of(&now.counts).saturating_sub(of(&before.counts));
        let ended = since(PoolCounts::ended);
        let connects = now.counts.connects.since(&before.counts.connects);
        let sample = PoolSample {
            sessions: now.sessions,
            // New sessions: those that have ended, and those by which the open ones have become more.
            opened: clamp((ended + u64::from(now.sessions)).saturating_sub(before.sessions.into())),
            failed: clamp(since(PoolCounts::failed)),
            bytes_up: since(|counts| counts.bytes_up) as f32,
            bytes_down: since(|counts| counts.bytes_down) as f32,
            connect_p99: connects.quantile(0.99).map(|seconds| seconds as f32),
        };
        push(&mut self.samples, sample, SAMPLES_MAX);
        Some(sample)
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
