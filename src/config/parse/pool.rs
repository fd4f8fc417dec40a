//! `[pools.NAME]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::health::{HealthConfig, health};
use super::limits::{ANY_TIME, PoolLimits, SOME_TIME};
use super::{Mistakes, Section, server};
use crate::config::file::{Entry, Node, Value};
use crate::config::keys;
use crate::dial::{ConnectOptions, DialLimits};
use crate::plan::{PoolPlan, ServerEntry, Sever, SeveringPlan};
use crate::pool::{Policy, PoolRules};
use crate::proxy_protocol::Version;

/// The system's resolver has no cache to speak of: more often would only be load on the name server.
const RESOLVE_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=*SOME_TIME.end();

/// How fast sessions are cut where nothing is said of it.
const CLOSE_OVER: Duration = Duration::from_secs(10);

/// Our policies, and what the peers call them.
const POLICIES: [(&str, Policy); 4] = [
    ("least-conn", Policy::LeastConn),
    ("source-hash", Policy::SourceHash),
    ("round-robin", Policy::RoundRobin),
    ("random-two", Policy::RandomTwo),
];
const POLICIES_OF_PEERS: [(&str, &str); 8] = [
    ("leastrequest", "least-conn"),
    ("source", "source-hash"),
    ("hash", "source-hash"),
    ("iphash", "source-hash"),
    ("ringhash", "source-hash"),
    ("maglev", "source-hash"),
    ("wrr", "round-robin"),
    ("random", "random-two"),
];

/// Reads a pool; `None` if it is no table.
pub(super) fn pool(entry: &Entry, inherited: PoolLimits, m: &mut Mistakes<'_>) -> Option<PoolPlan> {
    let section = Section::open(&entry.node, &entry.place, &keys::POOL, m)?;
    let limits = inherited.overlaid(&section, m);
    let policy = section.get("balance").and_then(|node| balance(node, m));
    let entries = server::servers(&section, m);
    let HealthConfig {
        plan: health,
        eject,
        panic_threshold,
    } = health(&section, m);
    let severing = severing(&section, &entries, health.check.is_some(), m);
    let headers = [("off", None), ("v1", Some(Version::V1)), ("v2", Some(Version::V2))];
    let proxy_protocol = section.word("proxy_protocol", &headers, m).unwrap_or(None);
    if let (Some((place, _)), Some(_), Some(service)) =
        (section.entry("proxy_protocol"), proxy_protocol, health.service())
        && !service.accepts_proxy_header
    {
        let service = service.name;
        m.warn(
            place,
            format!("{service} does not accept a PROXY header"),
            format!("checks and sessions send it: leave it out, unless something before {service} takes it off"),
        );
    }
    let rules = PoolRules {
        policy: policy.unwrap_or(Policy::LeastConn),
        eject,
        connect_timeout: limits.connect_timeout,
        slow_start: section.duration_or_off("slow_start", SOME_TIME, m).flatten(),
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
        entries,
        resolve_interval: section
            .duration("resolve_interval", RESOLVE_INTERVAL, m)
            .unwrap_or(Duration::from_secs(30)),
        resolve: limits.resolve,
    })
}

fn balance(node: &Node, m: &mut Mistakes<'_>) -> Option<Policy> {
    if let Value::Text(text) = &node.value {
        let folded = crate::config::peers::fold(text);
        let ours = POLICIES_OF_PEERS.iter().find(|(theirs, _)| *theirs == folded);
        if let Some((_, ours)) = ours {
            m.say(
                &node.place,
                format!("`{text}` is not known here"),
                format!("here it is \"{ours}\""),
            );
            return None;
        }
    }
    super::value::word(node, &POLICIES, m)
}

/// What becomes of sessions when servers come and go.
fn severing(section: &Section<'_>, entries: &[ServerEntry], checked: bool, m: &mut Mistakes<'_>) -> SeveringPlan {
    let what = [("keep", Sever::Keep), ("close", Sever::Close)];
    let plan = SeveringPlan {
        on_down: section.word("on_down", &what, m).unwrap_or_default(),
        on_recover: section.word("on_recover", &what, m).unwrap_or_default(),
        close_over: section.duration("close_over", ANY_TIME, m).unwrap_or(CLOSE_OVER),
    };
    let mut warn = |key, label, is_idle| {
        if let (Some((place, _)), true) = (section.entry(key), is_idle) {
            m.warn(place, format!("`{key}` is never used"), label);
        }
    };
    let never_closes = plan.on_down == Sever::Keep && plan.on_recover == Sever::Keep;
    warn(
        "close_over",
        "neither `on_down` nor `on_recover` is \"close\"",
        never_closes,
    );
    let never_down = plan.on_down == Sever::Close && !checked;
    warn("on_down", "without checks no server goes down", never_down);
    let priority = |entry: &ServerEntry| entry.member_config.priority;
    let one_tier = entries.windows(2).all(|two| priority(&two[0]) == priority(&two[1]));
    let never_worse = plan.on_recover == Sever::Close && one_tier;
    warn("on_recover", "all servers are of one `priority`", never_worse);
    plan
}
