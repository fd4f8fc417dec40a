//! `max_session_age`, `rebalance` and `idle_for` of a pool.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::limits::NONZERO_DURATION;
use super::{Problems, Section};
use crate::plan::RetirePlan;
use crate::pool::Policy;
use crate::units::format_duration;

/// The bounds of all three durations.
const LIMITS: RangeInclusive<Duration> = Duration::from_secs(1)..=*NONZERO_DURATION.end();

/// The default of `idle_for`.
const IDLE_FOR_DEFAULT: Duration = Duration::from_secs(30);

/// Which sessions are ended although nothing is wrong with them.
pub(super) fn retiring(pool: &Section<'_>, policy: Policy, problems: &mut Problems<'_>) -> RetirePlan {
    let plan = RetirePlan {
        max_age: pool.duration_or_off("max_session_age", LIMITS, problems).flatten(),
        rebalance: pool.duration_or_off("rebalance", LIMITS, problems).flatten(),
        idle_for: pool.duration("idle_for", LIMITS, problems).unwrap_or(IDLE_FOR_DEFAULT),
    };
    if plan.rebalance.is_some()
        && policy.is_by_client()
        && let Some((position, _)) = pool.entry("rebalance")
    {
        let message = "`rebalance` does not go with `balance = \"source-hash\"`";
        problems.error(
            position,
            message,
            "remove one of them: a client that connects again would get the same server",
        );
    }
    if !plan.is_on()
        && let Some((position, _)) = pool.entry("idle_for")
    {
        problems.warning(
            position,
            "`idle_for` is never used",
            "set `max_session_age` or `rebalance`",
        );
    }
    // At `max_session_age`, a session ends once it has been idle for `idle_for`. A tenth of the age later it is cut.
    if plan.max_age.is_some_and(|age| age < plan.idle_for) {
        let entry = pool.entry("idle_for").or(pool.entry("max_session_age"));
        if let Some((position, _)) = entry {
            problems.warning(
                position,
                format!(
                    "`idle_for` ({}) is longer than `max_session_age`",
                    format_duration(plan.idle_for)
                ),
                "set a shorter `idle_for`: no session at its `max_session_age` has been idle for that long, so most would be cut",
            );
        }
    }
    plan
}
