//! What the handlers of the admin port and the Unix socket share: their state, and how requests and bodies write times.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::error::ApiError;
use super::streams::Events;
use crate::account::{Ledger, Metrics};
use crate::acme::Renewals;
use crate::capacity::ListenerLimits;
use crate::guard::LineBudget;
use crate::history::History;
use crate::live::Live;
use crate::reload::Reloader;
use crate::remote::RemoteConfig;
use crate::state_dir::UnsavedFiles;
use crate::units::parse_duration;

/// The longest `for` in a request: the limit of durations in the configuration.
const FOR_TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Parses `for` of a request: how long the effect of the request lasts; `None`: until another request undoes it.
pub(super) fn parse_for(text: Option<&str>) -> Result<Option<Duration>, ApiError> {
    text.map(parse_lifetime).transpose().map_err(ApiError::bad_request)
}

/// Parses the value of `for`.
///
/// # Errors
/// It is not a duration, or not in the range.
pub fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| format!("`for` is not a duration: {error}"))?;
    if time.is_zero() || time > FOR_TIME_MAX {
        return Err(String::from("`for` must be 1ms to 8760h"));
    }
    Ok(time)
}

/// A time as in all bodies: RFC 3339, in UTC, with milliseconds.
pub(super) fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// Converts seconds to milliseconds, rounded to the microsecond.
pub(super) fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

/// The state of access control between requests.
#[derive(Debug)]
pub struct ApiAccess {
    /// Bounds the log lines about requests that were rejected or failed.
    pub(super) failure_lines: LineBudget,
    /// Whether the token could not be read when it was last needed.
    pub(super) is_token_unreadable: AtomicBool,
}

impl ApiAccess {
    /// The state before the first request.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it depends on the time")]
    pub fn new() -> Self {
        Self {
            failure_lines: LineBudget::new(),
            is_token_unreadable: AtomicBool::new(false),
        }
    }
}

/// The state that the handlers of the admin port and the Unix socket read and change.
pub struct Admin {
    /// All metrics of the process.
    pub metrics: Arc<Metrics>,
    /// How many sessions the listeners have, and may have.
    pub limits: Arc<ListenerLimits>,
    /// The plan and the pools in force.
    pub live: Arc<Live>,
    /// Set when the process begins to drain.
    pub is_draining: AtomicBool,
    /// The state of access control between requests.
    pub access: ApiAccess,
    /// One per worker.
    pub ledgers: Vec<Arc<Ledger>>,
    /// The recent samples of the counters.
    pub history: Arc<History>,
    /// The streams of events.
    pub events: Events,
    /// Requests reloads.
    pub reloader: Reloader,
    /// The certificates that are ordered by ACME.
    pub renewals: Arc<Renewals>,
    /// The state of the configuration from a store.
    pub remote: Arc<RemoteConfig>,
    /// The files that cannot be written to `state_dir`; `None`: there is no `state_dir`.
    pub unsaved: Option<Arc<UnsavedFiles>>,
    /// When the process started.
    pub started: SystemTime,
    /// The absolute path of the configuration file; `None`: the process runs without one.
    pub configuration: Option<PathBuf>,
}
