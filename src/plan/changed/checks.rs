//! The keys of a pool's checks: those of `[pools.NAME.health]`, those of the role, and those of each kind of check.

use super::{Setting, setting};
use crate::plan::HealthPlan;
use crate::pool::{RoleRequirement, Thresholds};

/// The settings that do not belong to one kind of check.
pub(super) fn health_settings(health: &HealthPlan) -> Vec<Setting> {
    let HealthPlan {
        check,
        interval,
        interval_down,
        timeout,
        required: RoleRequirement { role, max_lag, single },
        thresholds: Thresholds { rise, fall },
        role_trust,
        address,
        port,
        concurrency,
    } = health;
    vec![
        setting("health.check", &check.as_ref().map(|check| check.kind().name)),
        setting("health.interval", interval),
        setting("health.interval_down", interval_down),
        setting("health.timeout", timeout),
        setting("role", role),
        setting("max_lag", max_lag),
        setting("single", single),
        setting("health.rise", rise),
        setting("health.fall", fall),
        setting("role_trust", role_trust),
        setting("health.address", address),
        setting("health.port", port),
        setting("health.concurrency", concurrency),
    ]
}

/// The keys whose values differ between two checks. A key that only one of the checks has is returned, too.
pub(super) fn differing_check_keys(old: &HealthPlan, new: &HealthPlan) -> Vec<&'static str> {
    let settings = |plan: &HealthPlan| plan.check.as_ref().map(|check| check.settings()).unwrap_or_default();
    let (old, new) = (settings(old), settings(new));
    let only = |some: &[Setting], others: &[Setting]| -> Vec<_> {
        some.iter()
            .filter(|setting| !others.contains(setting))
            .map(|(key, _)| *key)
            .collect()
    };
    let mut keys = [only(&old, &new), only(&new, &old)].concat();
    keys.sort_unstable();
    keys.dedup();
    keys
}
