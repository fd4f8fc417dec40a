//! `[pools.NAME.scale]`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::limits::NONZERO_DURATION;
use super::{Problems, Section, value};
use crate::config::file::Node;
use crate::config::keys;
use crate::config::report::Position;
use crate::plan::HealthPlan;
use crate::pool::MemberConfig;
use crate::scale::{CloneCommand, CloneHook, CloneSource, ScalePlan, ScaleRules};

/// Clones of one pool. The keeper has a pipe to each, and 1,024 descriptors.
const CLONES: RangeInclusive<u32> = 0..=256;

const SESSIONS: RangeInclusive<u32> = 1..=1_000_000;

/// Loads are looked at once a second.
const SECONDS: RangeInclusive<Duration> = Duration::from_secs(1)..=*NONZERO_DURATION.end();

/// The default of `ports`: outside of [`EPHEMERAL`].
const PORTS_DEFAULT: RangeInclusive<u16> = 20_000..=20_099;

/// The ports that Linux gives to outgoing connections by default (ip(7), `ip_local_port_range`).
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

const COMMAND_EXAMPLE: &str = r#"command = ["/usr/local/bin/app", "--port", "{port}"]"#;
const START_EXAMPLE: &str = r#"start = ["/usr/local/bin/start-vm", "{name}"]"#;
const STOP_EXAMPLE: &str = r#"stop = ["/usr/local/bin/stop-vm", "{name}"]"#;

/// How the pool grows and shrinks; `None`: it does not.
pub(super) fn scale(
    pool: &Section<'_>,
    health: &HealthPlan,
    of_pool: MemberConfig,
    problems: &mut Problems<'_>,
) -> Option<Arc<ScalePlan>> {
    let (position, node) = pool.entry("scale")?;
    let section = Section::open(node, position, &keys::SCALE, problems)?;
    check_pool(pool, health, position, problems);
    let rules = rules(&section, of_pool.sessions_max, problems);
    let duration = |key, default, problems: &mut Problems<'_>| {
        section
            .duration(key, SECONDS, problems)
            .unwrap_or(Duration::from_secs(default))
    };
    let plan = ScalePlan {
        member_config: of_pool,
        drain: duration("drain", 300, problems),
        start_timeout: duration("start_timeout", 30, problems),
        replace_after: duration("replace_after", 60, problems),
        source: source(&section, rules.max, problems)?,
        rules,
    };
    if let (Some(_), Some((position, _))) = (plan.wake(), pool.entry("fallback")) {
        let message = "`fallback` does not go with `min = 0` of `scale`";
        problems.error(
            position,
            message,
            "remove one of them: clients wait for a pool that sleeps",
        );
    }
    Some(Arc::new(plan))
}

/// Reports what the pool of clones cannot have.
fn check_pool(pool: &Section<'_>, health: &HealthPlan, position: &Position, problems: &mut Problems<'_>) {
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
    if pool.get("servers").is_none()
        && pool
            .get("bind_source")
            .is_some_and(|node| value::is_text(node, "client"))
    {
        let message = "`scale` does not go with `bind_source = \"client\"`";
        problems.error(position, message, "remove one of them: clones are reached at 127.0.0.1");
    }
}

fn rules(section: &Section<'_>, sessions_max: Option<NonZeroU32>, problems: &mut Problems<'_>) -> ScaleRules {
    let min = section.integer("min", CLONES, problems).unwrap_or(1);
    let _ = section.required("max", "max = 8", problems);
    let max = section.integer("max", 1..=*CLONES.end(), problems);
    if let (Some((position, _)), Some(max)) = (section.entry("max"), max)
        && max < min
    {
        problems.error(position, "`max` is less than `min`", format!("at least {min}"));
    }
    let _ = section.required("sessions_per_server", "sessions_per_server = 50", problems);
    let sessions = section.integer("sessions_per_server", SESSIONS, problems);
    if let (Some((position, _)), Some(sessions), Some(full)) =
        (section.entry("sessions_per_server"), sessions, sessions_max)
        && sessions > full.get()
    {
        let message = "`sessions_per_server` is more than `max_sessions`";
        problems.error(position, message, format!("at most {full}: a full server gets no more"));
    }
    let duration = |key, default, problems: &mut Problems<'_>| {
        section
            .duration(key, SECONDS, problems)
            .unwrap_or(Duration::from_secs(default))
    };
    ScaleRules {
        min,
        max: max.unwrap_or(min).max(min).max(1),
        sessions_per_server: sessions.unwrap_or(1),
        up_after: duration("up_after", 5, problems),
        down_after: duration("down_after", 120, problems),
        cooldown: duration("cooldown", 15, problems),
    }
}

/// What a clone is. `None`: that is reported.
fn source(section: &Section<'_>, clones_max: u32, problems: &mut Problems<'_>) -> Option<CloneSource> {
    let env = env(section, problems);
    match (section.get("command"), section.entry("hook")) {
        (Some(_), Some((position, _))) => {
            problems.error(position, "there are both `command` and `hook`", "remove one of them");
            None
        }
        (Some(command), None) => Some(CloneSource::Command(CloneCommand {
            words: value::command(command, COMMAND_EXAMPLE, problems),
            env,
            user: section.name("user", problems).map(Into::into),
            ports: ports(section, clones_max, problems)?,
        })),
        (None, Some((position, node))) => {
            for key in ["user", "ports"] {
                if let Some((position, _)) = section.entry(key) {
                    problems.warning(position, format!("`{key}` is never used"), "it belongs to `command`");
                }
            }
            let hook = Section::open(node, position, &keys::SCALE_HOOK, problems)?;
            let mut words = |key, example| {
                let node = hook.required(key, example, problems)?;
                Some(value::command(node, example, problems))
            };
            let (start, stop) = (words("start", START_EXAMPLE), words("stop", STOP_EXAMPLE));
            Some(CloneSource::Hook(CloneHook {
                start: start?,
                stop: stop?,
                env,
            }))
        }
        (None, None) => {
            if section.is_missing("command") && section.is_missing("hook") {
                let hint = format!("add {COMMAND_EXAMPLE} or hook = {{ {START_EXAMPLE}, {STOP_EXAMPLE} }}");
                problems.error(section.position(), "nothing says what a clone is", hint);
            }
            None
        }
    }
}

/// Environment variables.
fn env(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<(Box<str>, Box<str>)> {
    let table = section.get("env").and_then(|node| value::table(node, problems));
    let mut variables = Vec::new();
    for entry in table.map_or(&[][..], |table| &table.entries) {
        if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
            let hint = "write a name without `=`";
            problems.error(&entry.position, "invalid name of an environment variable", hint);
        }
        let Some(text) = value::string(&entry.node, problems) else {
            continue;
        };
        if text.contains('\0') {
            problems.error(&entry.node.position, "the value has a zero byte", "remove it");
        }
        variables.push((entry.key.as_str().into(), text.into()));
    }
    variables
}

fn ports(section: &Section<'_>, clones_max: u32, problems: &mut Problems<'_>) -> Option<RangeInclusive<u16>> {
    let Some(node) = section.get("ports") else {
        return Some(PORTS_DEFAULT);
    };
    let text = value::string(node, problems)?;
    let range = range_of(text);
    match &range {
        None => {
            let hint = r#"write the first and the last, as in "20000-20099""#;
            problems.error(&node.position, format!("`{text}` is not a range of ports"), hint);
        }
        Some(range) => check_ports(node, range, clones_max, problems),
    }
    range
}

fn check_ports(node: &Node, range: &RangeInclusive<u16>, clones_max: u32, problems: &mut Problems<'_>) {
    if range.len() < clones_max as usize {
        let message = format!("{} ports are too few for `max = {clones_max}`", range.len());
        problems.error(&node.position, message, "write a wider range, or a lower `max`");
    }
    if range.start() <= EPHEMERAL.end() && range.end() >= EPHEMERAL.start() {
        let (first, last) = (EPHEMERAL.start(), EPHEMERAL.end());
        let hint = format!("{first}-{last} are usually the ports of outgoing connections: use others");
        problems.warning(&node.position, "a port may be in use when a clone wants it", hint);
    }
}

fn range_of(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (1..=last).contains(&first).then_some(first..=last)
}
