//! `[pools.NAME]`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::health::{HealthConfig, health};
use super::limits::{ANY_DURATION, NONZERO_DURATION, PoolSettings};
use super::{Problems, Section, server};
use crate::config::file::{KeyValue, Node, Value};
use crate::config::keys;
use crate::dial::{ConnectOptions, DialLimits};
use crate::plan::{Failback, HealthPlan, PoolPlan, ServerEntry, Sever, SeveringPlan};
use crate::pool::{Policy, PoolRules, Role};
use crate::proxy_protocol::Version;

/// The system's resolver hardly caches: a shorter interval would only add load on the name server.
const RESOLVE_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=*NONZERO_DURATION.end();

/// The default of `close_over`.
const CLOSE_OVER_DEFAULT: Duration = Duration::from_secs(10);

/// Values of `balance`.
const POLICIES: [(&str, Policy); 4] = [
    ("least-conn", Policy::LeastConn),
    ("source-hash", Policy::SourceHash),
    ("round-robin", Policy::RoundRobin),
    ("random-two", Policy::RandomTwo),
];

/// Normalized names of policies of other proxies, each with the value here.
const POLICY_SYNONYMS: [(&str, &str); 8] = [
    ("leastrequest", "least-conn"),
    ("source", "source-hash"),
    ("hash", "source-hash"),
    ("iphash", "source-hash"),
    ("ringhash", "source-hash"),
    ("maglev", "source-hash"),
    ("wrr", "round-robin"),
    ("random", "random-two"),
];

/// Converts a pool. `None` if it is not a table.
pub(super) fn pool(entry: &KeyValue, inherited: PoolSettings, problems: &mut Problems<'_>) -> Option<PoolPlan> {
    let section = Section::open(&entry.node, &entry.position, &keys::POOL, problems)?;
    let limits = inherited.overridden_by(&section, problems);
    let policy = section.get("balance").and_then(|node| balance(node, problems));
    let entries = server::servers(&section, problems);
    let HealthConfig {
        plan: health,
        eject,
        panic_threshold,
    } = health(&section, problems);
    let is_checked = health.check.is_some();
    let severing = severing(&section, &entries, &health, problems);
    let headers = [("off", None), ("v1", Some(Version::V1)), ("v2", Some(Version::V2))];
    let proxy_protocol = section.one_of("proxy_protocol", &headers, problems).unwrap_or(None);
    if let (Some((position, _)), Some(_), Some(service)) =
        (section.entry("proxy_protocol"), proxy_protocol, health.service())
        && !service.accepts_proxy_header
    {
        let service = service.name;
        problems.warning(
            position,
            format!("{service} does not accept a PROXY header"),
            format!("remove it, unless something in front of {service} strips the header"),
        );
    }
    let rules = PoolRules {
        policy: policy.unwrap_or(Policy::LeastConn),
        eject,
        connect_timeout: limits.connect_timeout,
        slow_start: section
            .duration_or_off("slow_start", NONZERO_DURATION, problems)
            .flatten(),
        panic_threshold,
    };
    Some(PoolPlan {
        name: entry.key.as_str().into(),
        rules,
        dial: DialLimits {
            connect: ConnectOptions {
                timeout: limits.connect_timeout,
                socket: limits.socket,
                proxy_protocol,
            },
            retries: limits.retries,
        },
        health,
        severing,
        fallback: fallback(&section),
        failback: failback(&section, is_checked, problems),
        entries,
        resolve_interval: section
            .duration("resolve_interval", RESOLVE_INTERVAL, problems)
            .unwrap_or(Duration::from_secs(30)),
        resolve: limits.resolve,
        direct_tls: section
            .one_of("direct", &[("on", true), ("off", false)], problems)
            .unwrap_or(true),
    })
}

fn balance(node: &Node, problems: &mut Problems<'_>) -> Option<Policy> {
    if let Value::String(text) = &node.value {
        let normalized = crate::config::synonyms::normalize(text);
        let synonym = POLICY_SYNONYMS.iter().find(|(name, _)| *name == normalized);
        if let Some((_, equivalent)) = synonym {
            problems.error(
                &node.position,
                format!("unknown value `{text}`"),
                format!("acequia calls it \"{equivalent}\""),
            );
            return None;
        }
    }
    super::value::one_of(node, &POLICIES, problems)
}

/// The pool that is used while this one has no usable server. That it exists is checked when all pools are known.
fn fallback(section: &Section<'_>) -> Option<Arc<str>> {
    match &section.get("fallback")?.value {
        Value::String(name) => Some(name.as_str().into()),
        _ => None,
    }
}

/// Whether a server that went down is used again by itself.
fn failback(section: &Section<'_>, is_checked: bool, problems: &mut Problems<'_>) -> Failback {
    let values = [("auto", Failback::Auto), ("manual", Failback::Manual)];
    let failback = section.one_of("failback", &values, problems).unwrap_or_default();
    if let (Some((position, _)), Failback::Manual, false) = (section.entry("failback"), failback, is_checked) {
        problems.warning(
            position,
            "`failback` is never used",
            "a server without checks never goes down",
        );
    }
    failback
}

/// When sessions are cut because servers go down or come back.
fn severing(
    section: &Section<'_>,
    entries: &[ServerEntry],
    health: &HealthPlan,
    problems: &mut Problems<'_>,
) -> SeveringPlan {
    let values = [("keep", Sever::Keep), ("close", Sever::Close)];
    // Sessions on an old primary would go on to write to it.
    let on_down = if health.required.role == Some(Role::Primary) {
        Sever::Close
    } else {
        Sever::Keep
    };
    let plan = SeveringPlan {
        on_down: section.one_of("on_down", &values, problems).unwrap_or(on_down),
        on_lag: section.one_of("on_lag", &values, problems).unwrap_or_default(),
        on_recover: section.one_of("on_recover", &values, problems).unwrap_or_default(),
        close_over: section
            .duration("close_over", ANY_DURATION, problems)
            .unwrap_or(CLOSE_OVER_DEFAULT),
    };
    let mut warn = |key, hint, is_unused| {
        if let (Some((position, _)), true) = (section.entry(key), is_unused) {
            problems.warning(position, format!("`{key}` is never used"), hint);
        }
    };
    let never_closes = [plan.on_down, plan.on_lag, plan.on_recover] == [Sever::Keep; 3];
    warn(
        "close_over",
        "none of `on_down`, `on_lag` and `on_recover` is \"close\"",
        never_closes,
    );
    let never_behind = plan.on_lag == Sever::Close && health.required.max_lag.is_none();
    warn("on_lag", "`max_lag` is not set", never_behind);
    let never_down = plan.on_down == Sever::Close && health.check.is_none();
    warn("on_down", "a server without checks never goes down", never_down);
    let priority = |entry: &ServerEntry| entry.member_config.priority;
    let one_tier = entries.windows(2).all(|two| priority(&two[0]) == priority(&two[1]));
    let never_worse = plan.on_recover == Sever::Close && one_tier;
    warn("on_recover", "all servers have the same `priority`", never_worse);
    plan
}
