//! `[pools.NAME]` and its `health`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::limits::{PoolLimits, SOME_TIME};
use super::{Mistakes, Section, server};
use crate::config::file::{Entry, Node, Value};
use crate::config::keys;
use crate::dial::DialLimits;
use crate::dial::proxy_protocol::Version;
use crate::plan::{CheckKind, HealthPlan, PoolPlan, ServerEntry, Sever, SeveringPlan};
use crate::pool::health::{EjectLimits, Thresholds};
use crate::pool::{Policy, Pool, PoolRules, Server};

/// The system's resolver has no cache to speak of: more often would only be load on the name server.
const RESOLVE_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=*SOME_TIME.end();

/// A check costs a connection; a hundred a second to each server would be load, not a check.
const CHECK_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=*SOME_TIME.end();

/// Results in a row; no state should take more than that to change.
const STREAK: RangeInclusive<u32> = 1..=1_000;

/// Kinds of checks that do not work yet.
const CHECKS_LATER: [&str; 7] = ["tls", "http", "postgres", "mysql", "redis", "send-expect", "exec"];

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
    let (health, eject) = health(&section, m);
    let headers = [("off", None), ("v1", Some(Version::V1)), ("v2", Some(Version::V2))];
    let server = |entry: &ServerEntry| {
        let spec = entry.fixed()?;
        Some(Arc::new(Server::new(spec, entry.allotment, health.check.is_some())))
    };
    let fixed = entries.iter().filter_map(server).collect();
    let rules = PoolRules {
        policy: policy.unwrap_or(Policy::LeastConn),
        eject,
        connect_timeout: limits.connect_timeout,
        slow_start: None,
        panic_threshold: None,
    };
    Some(PoolPlan {
        pool: Pool::new(entry.key.as_str().into(), rules, fixed),
        dial: DialLimits {
            connect_timeout: limits.connect_timeout,
            retries: limits.retries,
            socket: limits.socket,
            proxy_protocol: section.word("proxy_protocol", &headers, m).unwrap_or(None),
        },
        health,
        severing: SeveringPlan {
            on_down: Sever::Keep,
            on_recover: Sever::Keep,
            close_over: Duration::from_secs(10),
        },
        entries,
        resolve_interval: section
            .duration("resolve_interval", RESOLVE_INTERVAL, m)
            .unwrap_or(Duration::from_secs(30)),
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

fn health(pool: &Section<'_>, m: &mut Mistakes<'_>) -> (HealthPlan, EjectLimits) {
    if let Some(node) = pool.get("health")
        && super::value::is_off(node)
    {
        m.say(
            &node.place,
            "expected a table, found text",
            r#"write { check = "off" }"#,
        );
        return (USUAL_HEALTH, USUAL_EJECTION);
    }
    let section = pool.child("health", &keys::HEALTH, m);
    let usual = USUAL_HEALTH;
    let check = section.get("check").and_then(|node| check(node, m));
    let interval = section.duration("interval", CHECK_INTERVAL, m);
    let plan = HealthPlan {
        check: check.unwrap_or(usual.check),
        interval: interval.unwrap_or(usual.interval),
        interval_down: interval.unwrap_or(usual.interval_down),
        timeout: section.duration("timeout", SOME_TIME, m).unwrap_or(usual.timeout),
        thresholds: Thresholds {
            rise: section.whole("rise", STREAK, m).unwrap_or(usual.thresholds.rise),
            fall: section.whole("fall", STREAK, m).unwrap_or(usual.thresholds.fall),
        },
        address: None,
        port: None,
        concurrency: usual.concurrency,
    };
    (plan, ejection(&section, m))
}

const USUAL_HEALTH: HealthPlan = HealthPlan {
    check: Some(CheckKind::Tcp),
    interval: Duration::from_secs(2),
    interval_down: Duration::from_secs(2),
    timeout: Duration::from_secs(1),
    thresholds: Thresholds { rise: 2, fall: 3 },
    address: None,
    port: None,
    concurrency: 64,
};

const USUAL_EJECTION: EjectLimits = EjectLimits {
    after: 3,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    percent_max: 50,
};

fn check(node: &Node, m: &mut Mistakes<'_>) -> Option<Option<CheckKind>> {
    if let Value::Text(text) = &node.value
        && CHECKS_LATER.contains(&text.as_str())
    {
        m.say(
            &node.place,
            format!("`{text}` checks do not work yet"),
            r#"write "tcp" or "off""#,
        );
        return None;
    }
    super::value::word(node, &[("tcp", true), ("off", false)], m).map(|on| on.then_some(CheckKind::Tcp))
}

fn ejection(section: &Section<'_>, m: &mut Mistakes<'_>) -> EjectLimits {
    let usual = USUAL_EJECTION;
    let first = section.duration("eject_for", SOME_TIME, m).unwrap_or(usual.first);
    let longest = section.duration("eject_max_for", SOME_TIME, m).unwrap_or(usual.longest);
    if first > longest {
        let said = section.get("eject_max_for").or_else(|| section.get("eject_for"));
        let place = said.map_or(section.place(), |node| &node.place);
        let of = |duration| crate::config::unit::show_duration(duration);
        let what = format!(
            "`eject_for` ({}) is longer than `eject_max_for` ({})",
            of(first),
            of(longest)
        );
        m.say(place, what, "the back-off begins with the one and ends with the other");
    }
    EjectLimits {
        after: section.whole("eject_after", STREAK, m).unwrap_or(usual.after),
        first,
        longest,
        percent_max: section
            .whole("eject_max_percent", 0..=100, m)
            .unwrap_or(usual.percent_max),
    }
}
