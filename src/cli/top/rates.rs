//! The latest rates per second: those of the process, and of each server.

use std::collections::HashMap;

use serde::Deserialize;
use tokio::time::Instant;

use crate::admin::bodies::StateBody;

/// The latest rates of the process, per second.
#[derive(Debug)]
pub(super) struct Rates {
    pub(super) opened: u64,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
}

/// The counts of the process in a sample: sums over all seconds of the sample.
#[derive(Debug, Deserialize)]
struct SampleCounts {
    opened: u64,
    bytes_up: u64,
    bytes_down: u64,
}

/// The part of an event `sample` that is used.
#[derive(Debug, Deserialize)]
pub(super) struct SampleEvent {
    /// The seconds that the sample covers; 0: the process is of a version whose samples cover one second each.
    #[serde(default)]
    seconds: u64,
    totals: SampleCounts,
}

impl SampleEvent {
    pub(super) fn rates(&self) -> Rates {
        let per_second = |count: u64| count / self.seconds.max(1);
        Rates {
            opened: per_second(self.totals.opened),
            bytes_up: per_second(self.totals.bytes_up),
            bytes_down: per_second(self.totals.bytes_down),
        }
    }
}

/// The rates of new sessions of servers, computed from the counts in successive states.
#[derive(Default)]
pub(super) struct ServerRates {
    /// By pool and server: how many sessions the server has had, and how many came per second.
    counts: HashMap<(String, String), (u64, f64)>,
    pub(super) counted_at: Option<Instant>,
}

impl ServerRates {
    /// Takes the counts of a new state, and computes the rates since the previous one.
    pub(super) fn update(&mut self, state: &StateBody) {
        let now = Instant::now();
        let seconds = self.counted_at.map(|at| (now - at).as_secs_f64());
        let counts = state.servers().map(|(pool, server)| {
            let key = (pool.name.clone(), server.name.clone());
            let before = self.counts.get(&key).map(|(count, _)| *count);
            let per_second = before.zip(seconds).map_or(0.0, |(before, seconds)| {
                // At least 0.1 s, so that two states that arrive together do not give a very high rate.
                server.sessions_so_far.saturating_sub(before) as f64 / seconds.max(0.1)
            });
            (key, (server.sessions_so_far, per_second))
        });
        self.counts = counts.collect();
        self.counted_at = Some(now);
    }

    pub(super) fn get(&self, pool: &str, server: &str) -> f64 {
        let key = (pool.to_owned(), server.to_owned());
        self.counts.get(&key).map_or(0.0, |(_, rate)| *rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_of_one_second_unless_it_says_otherwise() {
        let opened = |seconds: &str| {
            let text = format!(r#"{{ {seconds} "totals": {{ "opened": 12, "bytes_up": 0, "bytes_down": 0 }} }}"#);
            serde_json::from_str::<SampleEvent>(&text).unwrap().rates().opened
        };
        assert_eq!((opened(r#""seconds": 3,"#), opened("")), (4, 12));
    }
}
