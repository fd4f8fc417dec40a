//! The performance goals of acequia, all but one relative to HAProxy, and whether this run meets them.

use std::fmt::Write as _;

use crate::report::{Figures, Idle, Report, Table};

const OWN: &str = "acequia";

/// HAProxy's two modes; a goal compares with the better of them.
const HAPROXY_MODES: [&str; 2] = ["HAProxy, splice", "HAProxy, copy"];

/// An upper or lower bound on the ratio of acequia's figure to HAProxy's, in one workload.
struct Goal {
    what: &'static str,
    workload: &'static str,
    figure: fn(&Figures) -> f64,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }

    /// The ratio to the better mode of HAProxy, of the ratios to both modes. If less is better, as in [`Self::AtMost`],
    /// the better mode has the lower figure, and thus the higher ratio.
    fn to_better_mode(self, ratios: impl Iterator<Item = f64>) -> Option<f64> {
        match self {
            Self::AtMost(_) => ratios.max_by(f64::total_cmp),
            Self::AtLeast(_) => ratios.min_by(f64::total_cmp),
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most:.2}"),
            Self::AtLeast(least) => format!("≥ {least:.2}"),
        }
    }

    /// The ratio with two decimals; with three if two would make it the bound.
    fn ratio_text(self, ratio: f64) -> String {
        let (Self::AtMost(bound) | Self::AtLeast(bound)) = self;
        let text = format!("{ratio:.2}");
        if text == format!("{bound:.2}") {
            format!("{ratio:.3}")
        } else {
            text
        }
    }
}

const GOALS: [Goal; 9] = [
    Goal {
        what: "CPU per round trip, 16 sessions",
        workload: "64-byte round trips, 16 sessions",
        figure: |figures| figures.cpu_each,
        bound: Bound::AtMost(0.85),
    },
    Goal {
        what: "CPU per round trip, 128 sessions",
        workload: "64-byte round trips, 128 sessions",
        figure: |figures| figures.cpu_each,
        bound: Bound::AtMost(0.85),
    },
    Goal {
        what: "p99, 128 sessions, closed loop",
        workload: "64-byte round trips, 128 sessions",
        figure: |figures| figures.p99,
        bound: Bound::AtMost(0.9),
    },
    Goal {
        what: "p99, 128 sessions, 10,000/s",
        workload: "64-byte round trips, 128 sessions, 10,000/s",
        figure: |figures| figures.p99,
        bound: Bound::AtMost(0.9),
    },
    Goal {
        what: "CPU per new session",
        workload: "new sessions",
        figure: |figures| figures.cpu_each,
        bound: Bound::AtMost(0.85),
    },
    Goal {
        what: "CPU per new session by name, among 10,000",
        workload: "new sessions by name, among 10000 names",
        figure: |figures| figures.cpu_each,
        bound: Bound::AtMost(0.8),
    },
    Goal {
        what: "bulk down, 8 sessions",
        workload: "bulk down, 8 sessions",
        figure: |figures| figures.rate,
        bound: Bound::AtLeast(1.0),
    },
    Goal {
        what: "CPU per GB, bulk down, 8 sessions",
        workload: "bulk down, 8 sessions",
        figure: |figures| figures.cpu_each,
        bound: Bound::AtMost(1.0),
    },
    Goal {
        what: "bulk up, 8 sessions",
        workload: "bulk up, 8 sessions",
        figure: |figures| figures.rate,
        bound: Bound::AtLeast(1.0),
    },
];

/// A table of the goals whose workloads this run has measured.
pub(crate) fn markdown(report: &Report) -> String {
    let mut lines = String::new();
    let mut line = |what: &str, ratio: f64, bound: Bound| {
        let word = if bound.holds(ratio) { "yes" } else { "**no**" };
        let _ = writeln!(
            lines,
            "| {what} | {} | {} | {word} |",
            bound.text(),
            bound.ratio_text(ratio)
        );
    };
    for goal in &GOALS {
        let ratio = report
            .table(goal.workload)
            .and_then(|table| against_haproxy(table, goal));
        if let Some(ratio) = ratio {
            line(goal.what, ratio, goal.bound);
        }
    }
    if let Some(ratio) = beside_slow(report) {
        line(
            "rate of fast sessions beside slow readers, to their rate alone",
            ratio,
            Bound::AtLeast(0.9),
        );
    }
    if let Some(ratio) = memory(&report.idle) {
        line("user memory of an idle session", ratio, Bound::AtMost(0.6));
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "## Goals\n\nRatios to the better of HAProxy's two modes, if not said otherwise.\n\n| | goal | measured | held |\n|---|---|---|---|\n{lines}\n"
    )
}

fn against_haproxy(table: &Table, goal: &Goal) -> Option<f64> {
    let own = table.row(OWN)?;
    let others = HAPROXY_MODES.iter().filter_map(|name| table.row(name));
    let ratios = others.map(|other| own.ratio(other, goal.figure));
    goal.bound.to_better_mode(ratios)
}

fn beside_slow(report: &Report) -> Option<f64> {
    let rate = |name| Some(report.table(name)?.row(OWN)?.median(|figures| figures.rate));
    Some(
        rate("64-byte round trips, 64 sessions beside 64 slow readers")?
            / rate("64-byte round trips, 64 sessions alone")?,
    )
}

fn memory(idle: &[Idle]) -> Option<f64> {
    let figure = |name: &str| {
        idle.iter()
            .find(|idle| idle.name == name)
            .map(|idle| idle.user_bytes as f64)
    };
    let others = HAPROXY_MODES.iter().filter_map(|name| figure(name));
    Some(figure(OWN)? / others.min_by(f64::total_cmp)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload;

    #[test]
    fn every_goal_has_its_workload() {
        let names: Vec<_> = workload::all().into_iter().map(|workload| workload.name).collect();
        for goal in &GOALS {
            assert!(names.iter().any(|name| name == goal.workload), "{}", goal.workload);
        }
        assert!(
            names
                .iter()
                .any(|name| name == "64-byte round trips, 64 sessions alone")
        );
        assert!(
            names
                .iter()
                .any(|name| name == "64-byte round trips, 64 sessions beside 64 slow readers")
        );
    }

    #[test]
    fn a_ratio_that_just_misses_its_goal_is_not_shown_as_the_goal() {
        assert_eq!(Bound::AtLeast(0.9).ratio_text(0.899), "0.899");
        assert_eq!(Bound::AtMost(0.85).ratio_text(0.8533), "0.853");
        assert_eq!(Bound::AtMost(0.85).ratio_text(0.934), "0.93");
    }

    #[test]
    fn a_goal_compares_with_the_better_mode() {
        assert_eq!(Bound::AtMost(1.0).to_better_mode([0.8, 0.9].into_iter()), Some(0.9));
        assert_eq!(Bound::AtLeast(1.0).to_better_mode([1.8, 1.1].into_iter()), Some(1.1));
        assert!(Bound::AtMost(0.85).holds(0.85) && !Bound::AtLeast(1.0).holds(0.99));
    }
}
