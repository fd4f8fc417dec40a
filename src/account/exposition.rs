//! The text exposition format of Prometheus, for the series that the crate `metrics-exporter-prometheus` does not keep.

use std::fmt::{Display, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics_exporter_prometheus::formatting::{sanitize_label_value, write_help_line, write_type_line};

/// The type of a metric family.
#[derive(Clone, Copy, Debug)]
pub(super) enum MetricType {
    Counter,
    Gauge,
    Histogram,
}

/// Writes the HELP and TYPE lines of a family.
pub(super) fn write_header(text: &mut String, name: &str, metric_type: MetricType, help: &str) {
    let metric_type = match metric_type {
        MetricType::Counter => "counter",
        MetricType::Gauge => "gauge",
        MetricType::Histogram => "histogram",
    };
    write_help_line(text, name, None, None, help);
    write_type_line(text, name, None, None, metric_type);
}

/// Writes one sample. `labels` are the text between the braces, see [`format_labels`]; without labels there are no
/// braces.
pub(super) fn write_sample(text: &mut String, name: &str, labels: &str, value: impl Display) {
    let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
    writeln!(text, "{name}{open}{labels}{close} {value}").expect("writing to a String cannot fail");
}

/// A gauge with its samples, written together once they are complete.
pub(super) struct GaugeFamily {
    name: &'static str,
    help: &'static str,
    samples: String,
}

impl GaugeFamily {
    pub(super) const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            samples: String::new(),
        }
    }

    pub(super) fn add(&mut self, labels: &str, value: impl Display) {
        write_sample(&mut self.samples, self.name, labels, value);
    }

    /// Appends the family to the text if it has samples.
    pub(super) fn write(&self, text: &mut String) {
        if !self.samples.is_empty() {
            write_header(text, self.name, MetricType::Gauge, self.help);
            *text += &self.samples;
        }
    }
}

/// The text of the families that have samples.
pub(super) fn format_families<'a>(families: impl IntoIterator<Item = &'a GaugeFamily>) -> String {
    let mut text = String::new();
    families.into_iter().for_each(|family| family.write(&mut text));
    text
}

/// The time in seconds since the Unix epoch; 0 if there is none.
pub(super) fn seconds_since_epoch(time: Option<SystemTime>) -> u64 {
    let since_epoch = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since_epoch.map_or(0, |since| since.as_secs())
}

/// Formats labels as they stand between the braces: `key="value",…`, with escaped values.
pub(super) fn format_labels(labels: &[(&str, &str)]) -> String {
    let format_pair = |(key, value): &(&str, &str)| format!("{key}=\"{}\"", sanitize_label_value(value));
    labels.iter().map(format_pair).collect::<Vec<_>>().join(",")
}
