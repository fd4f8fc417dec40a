//! The samples of routes that are announced.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::exposition::{MetricType, format_labels, write_header, write_sample};
use super::names;

/// The state of routes that are announced.
#[derive(Clone, Debug)]
pub struct AnnounceSample {
    /// Whether the latest answer of their source was usable.
    pub is_up: bool,
    /// When it last gave a usable answer.
    pub last_success: Option<SystemTime>,
    /// The number of routes in force, by listener.
    pub routes: Vec<(Arc<str>, usize)>,
    /// The number of announcements that have no effect, by reason.
    pub refused: Vec<(&'static str, usize)>,
}

/// Writes the state of routes that are announced, if a listener accepts them.
#[must_use]
pub fn write_announced(sample: Option<&AnnounceSample>) -> String {
    let mut text = String::new();
    let Some(sample) = sample else { return text };
    let mut family = |name, help, samples: &mut dyn Iterator<Item = (String, u64)>| {
        write_header(&mut text, name, MetricType::Gauge, help);
        samples.for_each(|(labels, value)| write_sample(&mut text, name, &labels, value));
    };
    let alone = |value| std::iter::once((String::new(), value));
    let help = "Whether the latest answer of the source of announced routes was usable.";
    family(names::ANNOUNCE_UP, help, &mut alone(u64::from(sample.is_up)));
    let help = "When the source of announced routes last gave a usable answer, in seconds since the Unix epoch.";
    let since_epoch = sample.last_success.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let seconds = since_epoch.map_or(0, |since| since.as_secs());
    family(names::ANNOUNCE_LAST_SUCCESS, help, &mut alone(seconds));
    let labelled = |key: &str, value: &str, count: usize| (format_labels(&[(key, value)]), count as u64);
    let routes = sample.routes.iter();
    let mut routes = routes.map(|(listener, count)| labelled("listener", listener, *count));
    let help = "Announced routes in force at a listener.";
    family(names::ANNOUNCED_ROUTES, help, &mut routes);
    let refused = sample.refused.iter();
    let mut refused = refused.map(|(reason, count)| labelled("reason", reason, *count));
    let help = "Announcements of routes that have no effect, by reason.";
    family(names::ANNOUNCEMENTS_REFUSED, help, &mut refused);
    text
}
