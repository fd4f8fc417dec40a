//! `role` and `max_lag` of `[pools.NAME]`, for the kinds of checks that know roles.

use super::super::limits::SOME_TIME;
use super::{Mistakes, Section};
use crate::check::{Role, RoleRequirement};

const ROLES: [(&str, Role); 3] = [
    ("any", Role::Any),
    ("primary", Role::Primary),
    ("replica", Role::Replica),
];

/// Reads what a pool requires of the role of its servers.
pub(super) fn role_requirement(pool: &Section<'_>, m: &mut Mistakes<'_>) -> RoleRequirement {
    let role = pool.word("role", &ROLES, m).unwrap_or_default();
    let max_lag = pool.duration_or_off("max_lag", SOME_TIME, m).flatten();
    if let (Some((place, _)), Role::Primary) = (pool.entry("max_lag"), role) {
        m.warn(place, "`max_lag` is never used", "a primary is behind nobody");
    }
    RoleRequirement { role, max_lag }
}
