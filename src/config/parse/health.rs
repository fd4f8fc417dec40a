//! The keys of `[pools.NAME.health]` that do not depend on the kind of check.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::limits::NONZERO_DURATION;
use super::{Problems, Section, address, check, value};
use crate::config::file::Node;
use crate::config::keys;
use crate::config::report::Position;
use crate::plan::{HealthPlan, ServerEntry};
use crate::pool::{EjectLimits, RoleRequirement, Thresholds};
use crate::units;

/// A check costs a connection: more than a hundred a second would be a noticeable load for a server.
const CHECK_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=*NONZERO_DURATION.end();

/// The bounds of `rise`, `fall` and `eject_after`: how many results of the same kind in a row change the state of a
/// server.
const STREAK: RangeInclusive<u32> = 1..=1_000;

/// Each check under way has a file descriptor, which is then missing for sessions.
const CONCURRENCY: RangeInclusive<u32> = 1..=1024;

/// The defaults of the keys that begin with `eject`.
const EJECTION: EjectLimits = EjectLimits {
    after: 3,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    percent_max: 50,
    on_reset: false,
};

/// The settings of a pool for checks and ejections.
pub(super) struct HealthConfig {
    /// How servers are checked.
    pub(super) plan: HealthPlan,
    /// When servers are ejected.
    pub(super) eject: EjectLimits,
    /// See [`crate::pool::PoolRules::panic_threshold`].
    pub(super) panic_threshold: Option<u8>,
}

/// Converts `[pools.NAME.health]`, and the keys of `[pools.NAME]` that belong to checks. `entries` are the servers.
pub(super) fn health(pool: &Section<'_>, entries: &[ServerEntry], problems: &mut Problems<'_>) -> HealthConfig {
    let defaults = default_plan();
    if let Some(node) = pool.get("health").filter(|node| value::is_off(node)) {
        let hint = r#"write { check = "off" }"#;
        problems.error(&node.position, "expected a table, found a string", hint);
        return HealthConfig {
            plan: defaults,
            eject: EJECTION,
            panic_threshold: None,
        };
    }
    let section = pool.child("health", &keys::HEALTH, problems);
    reject_incomplete_address(&section, entries, pool.position(), problems);
    let (check, required_role) = check::check(pool, &section, problems);
    let interval = section
        .duration("interval", CHECK_INTERVAL, problems)
        .unwrap_or(defaults.interval);
    let plan = HealthPlan {
        check,
        interval,
        interval_down: section
            .duration("interval_down", CHECK_INTERVAL, problems)
            .unwrap_or(interval),
        timeout: section
            .duration("timeout", NONZERO_DURATION, problems)
            .unwrap_or(defaults.timeout),
        required: required_role,
        thresholds: Thresholds {
            rise: section
                .integer("rise", STREAK, problems)
                .unwrap_or(defaults.thresholds.rise),
            fall: section
                .integer("fall", STREAK, problems)
                .unwrap_or(defaults.thresholds.fall),
        },
        role_trust: pool
            .duration("role_trust", NONZERO_DURATION, problems)
            .unwrap_or(defaults.role_trust),
        address: section.parsed("address", address::ip, problems),
        port: section.port("port", problems),
        concurrency: section
            .integer("concurrency", CONCURRENCY, problems)
            .map_or(defaults.concurrency, |checks| checks as usize),
    };
    HealthConfig {
        plan,
        eject: ejection(&section, problems),
        panic_threshold: section
            .get("panic_threshold")
            .and_then(|node| panic_threshold(node, problems)),
    }
}

/// The defaults of the settings for checks.
fn default_plan() -> HealthPlan {
    HealthPlan {
        check: Some(check::default()),
        interval: Duration::from_secs(2),
        interval_down: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        required: RoleRequirement::default(),
        thresholds: Thresholds { rise: 2, fall: 3 },
        role_trust: Duration::from_secs(60),
        address: None,
        port: None,
        concurrency: 64,
    }
}

/// Reports a server on a Unix socket if only one of `address` and `port` is set for checks: the socket has no value for
/// the other one.
fn reject_incomplete_address(
    section: &Section<'_>,
    entries: &[ServerEntry],
    position: &Position,
    problems: &mut Problems<'_>,
) {
    if section.is_missing("address") != section.is_missing("port")
        && let Some(entry) = entries.iter().find(|entry| entry.is_unix())
    {
        let server = &entry.written;
        let message = format!("the checks of `{server}` have only one of `address` and `port`");
        let hint = "write both `address` and `port` of `health`, or neither: then the checks go to the socket";
        problems.error(position, message, hint);
    }
}

/// A percentage, or `"off"`.
fn panic_threshold(node: &Node, problems: &mut Problems<'_>) -> Option<u8> {
    value::integer_or(node, "off", 1..=100, problems).and_then(|percent| u8::try_from(percent).ok())
}

fn ejection(section: &Section<'_>, problems: &mut Problems<'_>) -> EjectLimits {
    let mut duration = |key, default| {
        let written = section.duration(key, NONZERO_DURATION, problems);
        let is_valid = written.is_some() || section.is_missing(key);
        (written.unwrap_or(default), is_valid)
    };
    let (first, is_first_valid) = duration("eject_for", EJECTION.first);
    let (longest, is_longest_valid) = duration("eject_max_for", EJECTION.longest);
    if first > longest && is_first_valid && is_longest_valid {
        let wrong = section.get("eject_max_for").or_else(|| section.get("eject_for"));
        let position = wrong.map_or(section.position(), |node| &node.position);
        let message = format!(
            "`eject_for` ({}) is longer than `eject_max_for` ({})",
            units::format_duration(first),
            units::format_duration(longest)
        );
        problems.error(position, message, "write durations in increasing order");
    }
    EjectLimits {
        after: section
            .integer("eject_after", STREAK, problems)
            .unwrap_or(EJECTION.after),
        first,
        longest,
        percent_max: section
            .integer("eject_max_percent", 0..=100, problems)
            .unwrap_or(EJECTION.percent_max),
        on_reset: section.boolean("eject_on_reset", problems).unwrap_or(EJECTION.on_reset),
    }
}
