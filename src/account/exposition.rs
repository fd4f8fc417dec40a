//! The text format of Prometheus, for the series that the exporter does not keep.

use std::fmt::{Display, Write};

use metrics_exporter_prometheus::formatting::{sanitize_label_value, write_help_line, write_type_line};

/// What a family of series is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The lines before the series of a name.
pub(super) fn head(text: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    write_help_line(text, name, None, None, help);
    write_type_line(text, name, None, None, kind);
}

/// One series; `labels` as they stand between the braces.
pub(super) fn sample(text: &mut String, name: &str, labels: &str, value: impl Display) {
    writeln!(text, "{name}{{{labels}}} {value}").expect("a String takes everything");
}

/// `key="value",…` as it stands between braces.
pub(super) fn pairs(labels: &[(&str, &str)]) -> String {
    let pair = |(key, value): &(&str, &str)| format!("{key}=\"{}\"", sanitize_label_value(value));
    labels.iter().map(pair).collect::<Vec<_>>().join(",")
}
