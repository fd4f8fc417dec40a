//! `role`, `max_lag` and `single` of `[pools.NAME]`, for the kinds of checks that know roles.

use super::super::limits::NONZERO_DURATION;
use super::super::value;
use super::{Problems, Section};
use crate::check::Check;
use crate::config::synonyms::Synonyms;
use crate::pool::{Role, RoleRequirement};

const ROLES: [(&str, Option<Role>); 3] = [
    ("any", None),
    ("primary", Some(Role::Primary)),
    ("replica", Some(Role::Replica)),
];

/// The names of roles in other programs.
const ROLE_SYNONYMS: Synonyms = &[
    (&["master", "leader", "writer", "readwrite", "source"], "primary"),
    (
        &["slave", "standby", "secondary", "follower", "reader", "readonly"],
        "replica",
    ),
];

/// Converts the requirements of a pool for the role of its servers. `check` is the pool's check, of a kind that has
/// these keys; `health` is `[pools.NAME.health]`.
pub(super) fn role_requirement(
    pool: &Section<'_>,
    health: &Section<'_>,
    check: &dyn Check,
    problems: &mut Problems<'_>,
) -> RoleRequirement {
    let role = pool.get("role");
    let role = role.and_then(|node| value::one_of_or_synonym(node, &ROLES, ROLE_SYNONYMS, problems));
    let role = role.unwrap_or_default();
    let max_lag = pool.duration_or_off("max_lag", NONZERO_DURATION, problems).flatten();
    if let (Some((position, _)), Some(Role::Primary)) = (pool.entry("max_lag"), role) {
        problems.warning(position, "`max_lag` is never used", "a primary has no lag");
    }
    if let (Some((position, _)), None, None) = (pool.entry("role_trust"), role, max_lag) {
        problems.warning(
            position,
            "`role_trust` is never used",
            "there is neither `role` nor `max_lag`",
        );
    }
    for (key, is_set) in [("role", role.is_some()), ("max_lag", max_lag.is_some())] {
        if is_set
            && !check.learns_role()
            && health.is_missing("user") // an invalid `user` is reported elsewhere
            && let Some((position, _)) = pool.entry(key)
        {
            let hint = "add `user` to [pools.NAME.health]";
            problems.error(position, format!("`{key}` needs a login"), hint);
        }
    }
    let single = pool.boolean("single", problems);
    RoleRequirement {
        role,
        max_lag,
        single: single.unwrap_or(true),
    }
}
