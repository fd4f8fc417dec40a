//! `[pools.NAME.scale]`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::clone_kind::clone_kind;
use super::limits::NONZERO_DURATION;
use super::providers::Providers;
use super::{Problems, Section, value};
use crate::config::keys;
use crate::plan::HealthPlan;
use crate::pool::MemberConfig;
use crate::scale::{ScalePlan, ScaleRules};

/// The bounds of `min`, and of `max`, which is at least 1. Each clone that is a process has a keeper, which is a second
/// process.
const CLONES: RangeInclusive<u32> = 0..=256;

/// The bounds of `sessions_per_server`.
const SESSIONS: RangeInclusive<u32> = 1..=1_000_000;

/// The bounds of all durations of the section. Most changes of the load are noticed only once a second, so a shorter
/// `up_after` or `down_after` could not be measured.
const SECONDS: RangeInclusive<Duration> = Duration::from_secs(1)..=*NONZERO_DURATION.end();

/// How the pool grows and shrinks; `None`: it does not.
pub(super) fn scale(
    pool: &Section<'_>,
    health: &HealthPlan,
    defaults: MemberConfig,
    providers: &Providers,
    problems: &mut Problems<'_>,
) -> Option<Arc<ScalePlan>> {
    let (position, node) = pool.entry("scale")?;
    let section = Section::open(node, position, &keys::SCALE, problems)?;
    check_pool(pool, &section, health, problems);
    let rules = rules(&section, defaults.sessions_max, problems);
    let plan = ScalePlan {
        member_config: defaults,
        drain: duration(&section, "drain", 300, problems),
        start_timeout: duration(&section, "start_timeout", 30, problems),
        replace_after: duration(&section, "replace_after", 60, problems),
        kind: clone_kind(&section, rules.max, providers, problems)?,
        rules,
    };
    let may_sleep = plan.wake_timeout().is_some();
    if may_sleep && let Some((position, _)) = pool.entry("fallback") {
        let message = "`fallback` does not go with `min = 0` of `scale`";
        problems.error(
            position,
            message,
            "remove one of them: clients wait for a pool that sleeps",
        );
    }
    Some(Arc::new(plan))
}

/// Reports settings of the pool and its checks that do not go with clones.
fn check_pool(pool: &Section<'_>, scale: &Section<'_>, health: &HealthPlan, problems: &mut Problems<'_>) {
    let position = scale.position();
    if health.check.is_none() {
        let hint = "set `check` of `health`: a clone becomes a server with its first good check";
        problems.error(position, "`scale` needs checks", hint);
    }
    if health.port.is_some() || health.address.is_some() {
        let message = "`scale` does not go with `address` and `port` of `health`";
        problems.error(
            position,
            message,
            "remove them: each clone is checked at its own address",
        );
    }
    // The only servers that the configuration gives to such a pool are clones, which are processes of this machine.
    let has_only_processes = pool.get("servers").is_none() && scale.get("command").is_some();
    let bind_source = pool.get("bind_source");
    if has_only_processes && bind_source.is_some_and(|node| value::is_text(node, "client")) {
        let message = "`scale` does not go with `bind_source = \"client\"`";
        problems.error(position, message, "remove one of them: clones are reached at 127.0.0.1");
    }
}

fn rules(section: &Section<'_>, sessions_max: Option<NonZeroU32>, problems: &mut Problems<'_>) -> ScaleRules {
    let min = section.integer("min", CLONES, problems).unwrap_or(1);
    section.required("max", "max = 8", problems);
    let max = section.integer("max", 1..=*CLONES.end(), problems);
    if let (Some((position, _)), Some(max)) = (section.entry("max"), max)
        && max < min
    {
        problems.error(position, "`max` is less than `min`", format!("at least {min}"));
    }
    section.required("sessions_per_server", "sessions_per_server = 50", problems);
    let sessions = section.integer("sessions_per_server", SESSIONS, problems);
    if let Some(sessions_max) = sessions_max
        && sessions.is_some_and(|sessions| sessions > sessions_max.get())
        && let Some((position, _)) = section.entry("sessions_per_server")
    {
        let message = "`sessions_per_server` is more than `max_sessions`";
        let hint = format!("at most {sessions_max}: a full server gets no more");
        problems.error(position, message, hint);
    }
    ScaleRules {
        min,
        max: max.unwrap_or(min).max(min).max(1), // after an error, `max` may be missing or less than `min`
        sessions_per_server: sessions.unwrap_or(1),
        up_after: duration(section, "up_after", 5, problems),
        down_after: duration(section, "down_after", 120, problems),
        cooldown: duration(section, "cooldown", 15, problems),
    }
}

fn duration(section: &Section<'_>, key: &str, default_seconds: u64, problems: &mut Problems<'_>) -> Duration {
    let written = section.duration(key, SECONDS, problems);
    written.unwrap_or(Duration::from_secs(default_seconds))
}
