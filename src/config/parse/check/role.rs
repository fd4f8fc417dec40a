//! `role` and `max_lag` of `[pools.NAME]`, for the kinds of checks that know roles.

use super::super::limits::NONZERO_DURATION;
use super::{Problems, Section};
use crate::check::{Role, RoleRequirement};

const ROLES: [(&str, Role); 3] = [
    ("any", Role::Any),
    ("primary", Role::Primary),
    ("replica", Role::Replica),
];

/// Converts the requirements of a pool for the role of its servers.
pub(super) fn role_requirement(pool: &Section<'_>, problems: &mut Problems<'_>) -> RoleRequirement {
    let role = pool.one_of("role", &ROLES, problems).unwrap_or_default();
    let max_lag = pool.duration_or_off("max_lag", NONZERO_DURATION, problems).flatten();
    if let (Some((position, _)), Role::Primary) = (pool.entry("max_lag"), role) {
        problems.warning(position, "`max_lag` is never used", "a primary has no lag");
    }
    RoleRequirement { role, max_lag }
}
