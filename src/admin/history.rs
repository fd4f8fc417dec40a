//! `GET /api/v1/history`: the last 15 minutes by the second, and how sessions have ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::context::{Admin, milliseconds, rfc3339};
use crate::account::Ending;
use crate::history::{PoolSample, Recorder, Sample};

/// Counts by ending. Counts of 0 are left out.
type ByEnding<T> = BTreeMap<&'static str, T>;

/// The response. Each quantity is a list with one value a second, oldest first. The lists of a pool may be shorter than
/// those of the process; all lists end with the same second.
#[derive(Debug, Serialize)]
pub(super) struct HistoryBody {
    /// When the last second ended; null: there is no sample yet.
    at: Option<String>,
    totals: TotalsSeriesBody,
    /// The pools with the most sessions since the start, in the order of the configuration.
    pools: Vec<PoolSeriesBody>,
    /// The endings that occurred since the start.
    endings: Vec<EndingCountsBody>,
}

#[derive(Debug, Serialize)]
struct TotalsSeriesBody {
    sessions: Vec<u32>,
    opened: Vec<u32>,
    bytes_up: Vec<u64>,
    bytes_down: Vec<u64>,
    connect_p99_ms: Vec<Option<f64>>,
    /// The series of the endings that occurred in these 15 minutes.
    endings: Vec<EndingSeriesBody>,
}

#[derive(Debug, Serialize)]
struct EndingSeriesBody {
    ending: &'static str,
    counts: Vec<u32>,
}

#[derive(Debug, Serialize)]
struct PoolSeriesBody {
    name: String,
    sessions: Vec<u32>,
    opened: Vec<u32>,
    failed: Vec<u32>,
    bytes_up: Vec<u64>,
    bytes_down: Vec<u64>,
    connect_p99_ms: Vec<Option<f64>>,
    /// How its sessions have ended since the start.
    endings: ByEnding<u64>,
}

/// How many sessions ended in this way: in the last minute, in the last hour, and since the start. The hour covers 59
/// to 60 minutes, because the counts at its start were stored at the end of a minute.
#[derive(Debug, Serialize)]
struct EndingCountsBody {
    ending: &'static str,
    minute: u64,
    hour: u64,
    start: u64,
}

/// The event `sample` of `GET /api/v1/events`: the open sessions, and what was counted since the previous sample.
#[derive(Debug, Serialize)]
pub(super) struct SampleBody {
    at: String,
    /// The number of seconds that the sample covers: one, unless the process was held up.
    seconds: u64,
    totals: TotalsSampleBody,
    pools: BTreeMap<String, PoolSampleBody>,
}

#[derive(Debug, Serialize)]
struct TotalsSampleBody {
    sessions: u32,
    opened: u32,
    bytes_up: u64,
    bytes_down: u64,
    connect_p99_ms: Option<f64>,
    endings: ByEnding<u32>,
}

#[derive(Debug, Serialize)]
struct PoolSampleBody {
    sessions: u32,
    opened: u32,
    failed: u32,
    bytes_up: u64,
    bytes_down: u64,
    connect_p99_ms: Option<f64>,
}

/// `GET /api/v1/endings`.
#[derive(Debug, Serialize)]
pub(super) struct EndingBody {
    ending: &'static str,
    description: &'static str,
    failure: bool,
}

pub(super) async fn endings() -> Json<Vec<EndingBody>> {
    let body = |ending: &Ending| EndingBody {
        ending: ending.as_str(),
        description: ending.description(),
        failure: ending.is_failure(),
    };
    Json(Ending::ALL.iter().map(body).collect())
}

pub(super) async fn history(State(admin): State<Arc<Admin>>) -> Json<HistoryBody> {
    Json(HistoryBody::new(&admin.history.recorder()))
}

impl HistoryBody {
    fn new(past: &Recorder) -> Self {
        let totals = past.totals();
        fn each<S, T>(samples: &VecDeque<S>, value: impl Fn(&S) -> T) -> Vec<T> {
            samples.iter().map(value).collect()
        }
        let ending_series = |ending: &Ending| EndingSeriesBody {
            ending: ending.as_str(),
            counts: each(totals, |sample| sample.endings[*ending as usize]),
        };
        let occurred = |ending: &&Ending| totals.iter().any(|sample| sample.endings[**ending as usize] > 0);
        let endings = Ending::ALL.iter().filter(occurred);
        let pools = past.past_pools().iter().map(|pool| PoolSeriesBody {
            name: pool.name.to_string(),
            sessions: each(&pool.samples, |sample| sample.sessions),
            opened: each(&pool.samples, |sample| sample.opened),
            failed: each(&pool.samples, |sample| sample.failed),
            bytes_up: each(&pool.samples, |sample| sample.bytes_up as u64),
            bytes_down: each(&pool.samples, |sample| sample.bytes_down as u64),
            connect_p99_ms: each(&pool.samples, |sample| to_ms(sample.connect_p99)),
            endings: by_ending(&pool.endings()),
        });
        Self {
            at: past.at().map(rfc3339),
            totals: TotalsSeriesBody {
                sessions: each(totals, |sample| sample.sessions),
                opened: each(totals, |sample| sample.opened),
                bytes_up: each(totals, |sample| sample.bytes_up),
                bytes_down: each(totals, |sample| sample.bytes_down),
                connect_p99_ms: each(totals, |sample| to_ms(sample.connect_p99)),
                endings: endings.map(ending_series).collect(),
            },
            pools: pools.collect(),
            endings: ending_counts(past),
        }
    }
}

fn ending_counts(past: &Recorder) -> Vec<EndingCountsBody> {
    let (minute, hour, start) = (past.endings_of_minute(), past.endings_of_hour(), past.endings());
    let counts = |ending: &Ending| EndingCountsBody {
        ending: ending.as_str(),
        minute: minute[*ending as usize],
        hour: hour[*ending as usize],
        start: start[*ending as usize],
    };
    Ending::ALL
        .iter()
        .map(counts)
        .filter(|counts| counts.start > 0)
        .collect()
}

fn to_ms(seconds: Option<f32>) -> Option<f64> {
    seconds.map(|seconds| milliseconds(seconds.into()))
}

/// The counts of endings that occurred.
fn by_ending<N: Copy + Default + PartialOrd>(endings: &[N; Ending::ALL.len()]) -> ByEnding<N> {
    let count = |ending: &Ending| (ending.as_str(), endings[*ending as usize]);
    let counts = Ending::ALL.iter().map(count);
    counts.filter(|(_, count)| *count > N::default()).collect()
}

pub(super) fn sample_body(sample: &Sample) -> SampleBody {
    let totals = &sample.totals;
    let pool = |(name, sample): &(Arc<str>, PoolSample)| {
        let body = PoolSampleBody {
            sessions: sample.sessions,
            opened: sample.opened,
            failed: sample.failed,
            bytes_up: sample.bytes_up as u64,
            bytes_down: sample.bytes_down as u64,
            connect_p99_ms: to_ms(sample.connect_p99),
        };
        (name.to_string(), body)
    };
    SampleBody {
        at: rfc3339(sample.at),
        seconds: sample.seconds,
        totals: TotalsSampleBody {
            sessions: totals.sessions,
            opened: totals.opened,
            bytes_up: totals.bytes_up,
            bytes_down: totals.bytes_down,
            connect_p99_ms: to_ms(totals.connect_p99),
            endings: by_ending(&totals.endings),
        },
        pools: sample.pools.iter().map(pool).collect(),
    }
}
