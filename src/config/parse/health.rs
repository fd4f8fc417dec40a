//! The keys of `[pools.NAME.health]` that do not belong to certain kinds of checks.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::limits::SOME_TIME;
use super::{Mistakes, Section, address, check, value};
use crate::addr::ServerAddr;
use crate::config::file::Node;
use crate::config::keys;
use crate::plan::HealthPlan;
use crate::pool::health::{EjectLimits, Thresholds};
use crate::units;

/// A check costs a connection: more than a hundred a second to each server would be load.
const CHECK_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=*SOME_TIME.end();

/// Results in a row that change a state.
const STREAK: RangeInclusive<u32> = 1..=1_000;

/// Each check under way has a file descriptor, which is then missing for sessions.
const CONCURRENCY: RangeInclusive<u32> = 1..=1024;

const PORT: RangeInclusive<u32> = 1..=65_535;

/// The defaults of the keys that begin with `eject`.
const EJECTION: EjectLimits = EjectLimits {
    after: 3,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    percent_max: 50,
    on_reset: false,
};

/// What a pool's configuration says about the health of its servers.
pub(super) struct HealthConfig {
    /// How they are checked.
    pub(super) plan: HealthPlan,
    /// When failed connects take a server out.
    pub(super) eject: EjectLimits,
    /// See [`crate::pool::PoolRules::panic_threshold`].
    pub(super) panic_threshold: Option<u8>,
}

/// Reads `[pools.NAME.health]`, and the keys of `[pools.NAME]` that belong to checks.
pub(super) fn health(pool: &Section<'_>, m: &mut Mistakes<'_>) -> HealthConfig {
    let defaults = default_plan();
    if let Some(node) = pool.get("health").filter(|node| value::is_off(node)) {
        let label = r#"write { check = "off" }"#;
        m.say(&node.place, "expected a table, found text", label);
        return HealthConfig {
            plan: defaults,
            eject: EJECTION,
            panic_threshold: None,
        };
    }
    let section = pool.child("health", &keys::HEALTH, m);
    let check = check::check(pool, &section, m);
    let interval = section
        .duration("interval", CHECK_INTERVAL, m)
        .unwrap_or(defaults.interval);
    let plan = HealthPlan {
        check,
        interval,
        interval_down: section.duration("interval_down", CHECK_INTERVAL, m).unwrap_or(interval),
        timeout: section.duration("timeout", SOME_TIME, m).unwrap_or(defaults.timeout),
        thresholds: Thresholds {
            rise: section.whole("rise", STREAK, m).unwrap_or(defaults.thresholds.rise),
            fall: section.whole("fall", STREAK, m).unwrap_or(defaults.thresholds.fall),
        },
        address: section.get("address").and_then(|node| check_address(node, m)),
        port: section.whole("port", PORT, m).and_then(|port| u16::try_from(port).ok()),
        concurrency: section
            .whole("concurrency", CONCURRENCY, m)
            .map_or(defaults.concurrency, |checks| checks as usize),
    };
    HealthConfig {
        plan,
        eject: ejection(&section, m),
        panic_threshold: section.get("panic_threshold").and_then(|node| panic_threshold(node, m)),
    }
}

/// How servers are checked where nothing is configured.
fn default_plan() -> HealthPlan {
    HealthPlan {
        check: Some(check::default()),
        interval: Duration::from_secs(2),
        interval_down: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        thresholds: Thresholds { rise: 2, fall: 3 },
        address: None,
        port: None,
        concurrency: 64,
    }
}

fn check_address(node: &Node, m: &mut Mistakes<'_>) -> Option<ServerAddr> {
    let text = value::text(node, m)?;
    match address::host(text) {
        Ok(address) => Some(address),
        Err((what, label)) => {
            m.say(&node.place, what, label);
            None
        }
    }
}

/// A percentage, or `"off"`.
fn panic_threshold(node: &Node, m: &mut Mistakes<'_>) -> Option<u8> {
    if value::is_off(node) {
        return None;
    }
    value::whole(node, 1..=100, m).and_then(|percent| u8::try_from(percent).ok())
}

fn ejection(section: &Section<'_>, m: &mut Mistakes<'_>) -> EjectLimits {
    let first = section.duration("eject_for", SOME_TIME, m).unwrap_or(EJECTION.first);
    let longest = section
        .duration("eject_max_for", SOME_TIME, m)
        .unwrap_or(EJECTION.longest);
    if first > longest {
        let wrong = section.get("eject_max_for").or_else(|| section.get("eject_for"));
        let place = wrong.map_or(section.place(), |node| &node.place);
        let what = format!(
            "`eject_for` ({}) is longer than `eject_max_for` ({})",
            units::show_duration(first),
            units::show_duration(longest)
        );
        m.say(place, what, "the back-off begins with the one and ends with the other");
    }
    EjectLimits {
        after: section.whole("eject_after", STREAK, m).unwrap_or(EJECTION.after),
        first,
        longest,
        percent_max: section
            .whole("eject_max_percent", 0..=100, m)
            .unwrap_or(EJECTION.percent_max),
        on_reset: section
            .get("eject_on_reset")
            .and_then(|node| value::truth(node, m))
            .unwrap_or(EJECTION.on_reset),
    }
}
