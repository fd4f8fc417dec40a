//! The metrics of announced routes: those that containers announce (`announce` of a listener).

use std::sync::Arc;
use std::time::SystemTime;

use super::exposition::{GaugeFamily, format_families, format_labels, seconds_since_epoch};
use super::names;

/// What the metrics show about announced routes.
#[derive(Clone, Debug)]
pub struct AnnounceSample {
    /// Whether the latest answer of the source of the announcements, the Docker engine, was usable; false before the
    /// first answer.
    pub is_up: bool,
    /// When the source last gave a usable answer; `None`: it has given none yet.
    pub last_success: Option<SystemTime>,
    /// The number of announced routes in force, by listener.
    pub routes: Vec<(Arc<str>, usize)>,
    /// The number of announcements that are refused and so have no effect, by reason.
    pub refused: Vec<(&'static str, usize)>,
}

/// The metrics of announced routes, as text. Without a sample, because no listener accepts announcements, the text is
/// empty.
#[must_use]
pub fn write_announced(sample: Option<&AnnounceSample>) -> String {
    let Some(sample) = sample else {
        return String::new();
    };
    let mut up = GaugeFamily::new(
        names::ANNOUNCE_UP,
        "Whether the latest answer of the source of announced routes was usable.",
    );
    up.add("", u64::from(sample.is_up));
    let mut last_success = GaugeFamily::new(
        names::ANNOUNCE_LAST_SUCCESS,
        "When the source of announced routes last gave a usable answer, in seconds since the Unix epoch.",
    );
    last_success.add("", seconds_since_epoch(sample.last_success));
    let mut routes = GaugeFamily::new(names::ANNOUNCED_ROUTES, "Announced routes in force at a listener.");
    for (listener, count) in &sample.routes {
        routes.add(&format_labels(&[("listener", listener)]), *count as u64);
    }
    let mut refused = GaugeFamily::new(
        names::ANNOUNCEMENTS_REFUSED,
        "Announcements of routes that have no effect, by reason.",
    );
    for (reason, count) in &sample.refused {
        refused.add(&format_labels(&[("reason", reason)]), *count as u64);
    }
    format_families([&up, &last_success, &routes, &refused])
}
