//! The report of a run: tables in Markdown, the figures as JSON, and the comparison with the goals.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::chart;
use crate::clients::Measured;
use crate::goals;
use crate::namespace::NetworkNamespace;
use crate::workload::Workload;

/// The figures of one proxy in one round. Times in seconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Units of work per second ([`crate::workload::Load::unit`]).
    pub(crate) rate: f64,
    /// CPU time of the proxy per unit of work.
    pub(crate) cpu_each: f64,
    /// Latencies; zero for bulk transfers.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) errors: u64,
}

impl Figures {
    pub(crate) fn new(measured: &Measured) -> Self {
        let at = |quantile| {
            if measured.latencies.is_empty() {
                return 0.0;
            }
            measured.latencies.value_at_quantile(quantile) as f64 / 1e9
        };
        Self {
            rate: measured.rate,
            cpu_each: measured.cpu_each,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            errors: measured.errors,
        }
    }
}

/// All rounds of one proxy in one workload.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<Figures>,
}

impl Row {
    pub(crate) fn new(name: &'static str, rounds: Vec<Figures>) -> Self {
        Self { name, rounds }
    }

    /// The median over all rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Figures) -> f64) -> f64 {
        median(self.rounds.iter().map(figure))
    }

    /// The median of the ratios to another proxy in the same round, because the machine's speed drifts between rounds.
    pub(crate) fn ratio(&self, to: &Self, figure: impl Fn(&Figures) -> f64) -> f64 {
        median(
            self.rounds
                .iter()
                .zip(&to.rounds)
                .map(|(own, other)| figure(own) / figure(other)),
        )
    }

    fn errors(&self) -> u64 {
        self.rounds.iter().map(|round| round.errors).sum()
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// All proxies in one workload.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// Whether the load sets the rate, so that the rate says nothing about the proxies.
    pub(crate) paced: bool,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}

/// Memory per idle session, in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) name: &'static str,
    /// Memory of the process.
    pub(crate) user_bytes: u64,
    /// Memory of the kernel for the proxy's two sockets.
    pub(crate) kernel_bytes: u64,
}

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) date: String,
    pub(crate) machine: String,
    pub(crate) network: &'static str,
    pub(crate) rounds: usize,
    /// How long each workload is measured with each proxy in a round.
    pub(crate) milliseconds: u64,
    pub(crate) versions: Vec<String>,
    pub(crate) tables: Vec<Table>,
    pub(crate) idle: Vec<Idle>,
}

impl Report {
    pub(crate) fn new(rounds: usize, milliseconds: u64, clients: &NetworkNamespace, versions: Vec<String>) -> Self {
        let report = Self {
            date: output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            machine: machine(),
            network: if clients.0.is_some() {
                "namespaces joined by veth pairs, MTU 1500, without segmentation offload"
            } else {
                "loopback"
            },
            rounds,
            milliseconds,
            versions,
            tables: Vec::new(),
            idle: Vec::new(),
        };
        eprintln!("{}", report.head());
        report
    }

    /// Adds a workload's rows, and prints them on standard error.
    pub(crate) fn add(&mut self, workload: &Workload, rows: Vec<Row>) {
        let table = Table {
            name: workload.name.clone(),
            unit: workload.load.unit(),
            paced: workload.load.is_paced(),
            rows,
        };
        eprintln!("{}", table.markdown());
        self.tables.push(table);
    }

    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Prints the report. If there is an `output`, also writes the report to `OUTPUT.md`, its figures to `OUTPUT.json`,
    /// and its chart, if it has one, to `OUTPUT.svg`.
    pub(crate) fn finish(&self, output: Option<&Path>) {
        let text = self.markdown();
        println!("{text}");
        let Some(output) = output else { return };
        fs::write(output.with_extension("md"), text).expect("the report can be written");
        let json = serde_json::to_string_pretty(self).expect("figures are finite or null");
        fs::write(output.with_extension("json"), json + "\n").expect("the figures can be written");
        chart::draw(self, &output.with_extension("svg"));
    }

    fn head(&self) -> String {
        let Self {
            date,
            machine,
            network,
            rounds,
            milliseconds,
            versions,
            ..
        } = self;
        format!(
            "{date}. {machine}. Over {network}. {rounds} rounds; in each, every workload is measured with every\n\
             proxy for {milliseconds} ms.\n\n- {}\n",
            versions.join("\n- ")
        )
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# acequia and other proxies\n\n{}\n\
             Errors are the sum over the rounds, other figures the median. A ratio compares a line with the first one: it\n\
             is the median of the ratios within each round. CPU is the proxy's own user and system time.\n\n\
             \"acequia, log, keepalive\" writes the access log (to /dev/null) and sets keepalive, as acequia does by default.\n\
             \"acequia\" and the other proxies do neither.\n\n",
            self.head()
        );
        text += &goals::markdown(self);
        for table in &self.tables {
            let _ = writeln!(text, "{}", table.markdown());
        }
        if let Some(first) = self.idle.first() {
            text += "## Memory of an idle session\n\n\
                     | | user | ratio | kernel |\n|---|---|---|---|\n";
            for idle in &self.idle {
                let ratio = idle.user_bytes as f64 / first.user_bytes as f64;
                let Idle {
                    name,
                    user_bytes,
                    kernel_bytes,
                } = idle;
                let _ = writeln!(
                    text,
                    "| {name} | {user_bytes} bytes | {ratio:.2} | {kernel_bytes} bytes |"
                );
            }
        }
        text
    }
}

impl Table {
    fn markdown(&self) -> String {
        let mut text = format!(
            "## {}\n\n| | rate | ratio | CPU per {} | ratio | p50 | p99 | p99.9 | errors |\n|---|---|---|---|---|---|---|---|---|\n",
            self.name, self.unit
        );
        for row in &self.rows {
            let ratio = |figure: fn(&Figures) -> f64| match row.ratio(&self.rows[0], figure) {
                // The row without a proxy has no CPU time.
                ratio if ratio.is_finite() && ratio != 0.0 => format!("{ratio:.2}"),
                _ => String::new(),
            };
            let latency = |figure: fn(&Figures) -> f64| match row.median(figure) {
                0.0 => String::new(),
                seconds => format!("{:.0} µs", seconds * 1e6),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.name,
                rate_text(row.median(|round| round.rate), self.unit),
                ratio(|round| round.rate),
                cpu_text(row.median(|round| round.cpu_each), self.unit),
                ratio(|round| round.cpu_each),
                latency(|round| round.p50),
                latency(|round| round.p99),
                latency(|round| round.p999),
                row.errors(),
            );
        }
        text
    }
}

pub(crate) fn rate_text(rate: f64, unit: &str) -> String {
    if unit == "GB" {
        format!("{:.1} Gbit/s", rate * 8.0)
    } else {
        format!("{rate:.0}/s")
    }
}

pub(crate) fn cpu_text(seconds: f64, unit: &str) -> String {
    match (seconds, unit) {
        (0.0, _) => String::new(),
        (_, "GB") => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{:.2} µs", seconds * 1e6),
    }
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let models: Vec<_> = models.collect();
    let model = models.first().copied().unwrap_or("unknown processor");
    format!("{} x {model}, {}", models.len(), output_of("uname", &["-srm"]))
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().into())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_ratios_within_rounds() {
        let row = |name, rates: [f64; 3]| {
            let rounds = rates.map(|rate| Figures {
                rate,
                ..Figures::default()
            });
            Row::new(name, rounds.into())
        };
        let (slow, fast) = (row("slow", [10.0, 20.0, 30.0]), row("fast", [20.0, 40.0, 30.0]));
        assert_eq!(fast.ratio(&slow, |round| round.rate), 2.0);
        assert_eq!(fast.median(|round| round.rate), 30.0);
    }
}
