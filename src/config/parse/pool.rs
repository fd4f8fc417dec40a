//! `[pools.NAME]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::bind_source::bind_source;
use super::discover::discover;
use super::health::{HealthConfig, health};
use super::limits::{ANY_DURATION, NONZERO_DURATION, PoolSettings};
use super::pool_tls::pool_tls;
use super::providers::Providers;
use super::retiring::retiring;
use super::scale::scale;
use super::{Problems, Section, server, value};
use crate::config::file::{self, KeyValue, Node, Value};
use crate::config::keys;
use crate::config::report::Position;
use crate::config::synonyms::Synonyms;
use crate::dial::{ConnectOptions, DialOptions};
use crate::plan::{Failback, Fallback, HealthPlan, PoolPlan, ServerEntry, Sever, SeveringPlan};
use crate::pool::{MemberConfig, Policy, PoolRules, QueueLimits, Role, RoleRequirement};
use crate::proxy_protocol::Version;

/// The system's resolver hardly caches: a shorter interval would only add load on the name server.
const RESOLVE_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=*NONZERO_DURATION.end();

/// The default of `close_over`.
const CLOSE_OVER_DEFAULT: Duration = Duration::from_secs(10);

/// Clients in the queue of a pool. Each is a connection, and the process has a limited number of these.
const QUEUE_CLIENTS: RangeInclusive<u32> = 1..=1_000_000;

/// The default of `max` of a queue.
const QUEUE_CLIENTS_DEFAULT: usize = 1_000;

/// The default of `timeout` of a queue.
const QUEUE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Values of `balance`.
const POLICIES: [(&str, Policy); 4] = [
    ("least-conn", Policy::LeastConn),
    ("source-hash", Policy::SourceHash),
    ("round-robin", Policy::RoundRobin),
    ("random-two", Policy::RandomTwo),
];

/// Normalized names of policies of other proxies, each with the equivalent value of `balance`.
const POLICY_SYNONYMS: Synonyms = &[
    (&["leastconn", "leastrequest"], "least-conn"),
    (&["source", "hash", "iphash", "ringhash", "maglev"], "source-hash"),
    (&["wrr", "roundrobin"], "round-robin"),
    (&["random"], "random-two"),
];

/// Converts a pool. `None` if it is not a table.
///
/// `has_pool_primary`: there is a pool named "primary" (see [`fallback`]).
pub(super) fn pool(
    entry: &KeyValue,
    inherited: PoolSettings,
    has_pool_primary: bool,
    providers: &Providers,
    problems: &mut Problems<'_>,
) -> Option<PoolPlan> {
    let section = Section::open(&entry.node, &entry.position, &keys::POOL, problems)?;
    let settings = inherited.overridden_by(&section, problems);
    let balance = section.get("balance");
    let policy = balance.and_then(|node| value::one_of_or_synonym(node, &POLICIES, POLICY_SYNONYMS, problems));
    let defaults = server::member_defaults(&section, problems);
    let entries = server::servers(&entry.key, &section, defaults, problems);
    let HealthConfig {
        plan: health,
        eject,
        panic_threshold,
    } = health(&section, &entries, problems);
    let is_checked = health.check.is_some();
    let fallback = fallback(&section, has_pool_primary, health.required, problems);
    let severing = severing(&section, &entries, &health, fallback.as_ref(), problems);
    let proxy_protocol = proxy_protocol(&section, &health, problems);
    let scale = scale(&section, &health, defaults, providers, problems);
    let queue = queue(&section, &entries, defaults, scale.is_some(), problems);
    let wake = scale.as_ref().and_then(|scale| scale.wake_timeout());
    let rules = PoolRules {
        policy: policy.unwrap_or(Policy::LeastConn),
        eject,
        connect_timeout: settings.connect_timeout,
        slow_start: section
            .duration_or_off("slow_start", NONZERO_DURATION, problems)
            .flatten(),
        panic_threshold,
        queue,
        wake,
        waits_for_return: queue.is_some() && fallback.is_none() && wake.is_none(),
    };
    Some(PoolPlan {
        name: entry.key.as_str().into(),
        rules,
        dial: dial_options(&section, settings, &entries, proxy_protocol, problems),
        health,
        severing,
        retiring: retiring(&section, rules.policy, problems),
        fallback,
        failback: failback(&section, is_checked, problems),
        entries: entries.into(),
        defaults,
        discover: discover(&section, defaults, settings.resolve, providers, problems),
        scale,
        resolve_interval: section
            .duration("resolve_interval", RESOLVE_INTERVAL, problems)
            .unwrap_or(Duration::from_secs(30)),
        resolve: settings.resolve,
        direct_tls: section
            .one_of("direct", &[("on", true), ("off", false)], problems)
            .unwrap_or(true),
        tls: pool_tls(&section, problems),
    })
}

/// A pool without servers and without settings of its own.
pub(super) fn default_plan(
    inherited: PoolSettings,
    providers: &Providers,
    problems: &mut Problems<'_>,
) -> Option<PoolPlan> {
    // A pool without a server or a source would be an error. This server is removed again below.
    let table = file::toml("servers = [\"127.0.0.1:1\"]").ok()?;
    let node = Node {
        position: Position::File,
        value: Value::Table(table),
    };
    let entry = KeyValue {
        key: String::new(),
        position: Position::File,
        node,
    };
    let plan = pool(&entry, inherited, false, providers, problems)?;
    Some(PoolPlan {
        entries: [].into(),
        ..plan
    })
}

/// How a server is connected to.
fn dial_options(
    section: &Section<'_>,
    settings: PoolSettings,
    entries: &[ServerEntry],
    proxy_protocol: Option<Version>,
    problems: &mut Problems<'_>,
) -> DialOptions {
    DialOptions {
        connect: ConnectOptions {
            timeout: settings.connect_timeout,
            socket: settings.socket,
            source: bind_source(section, entries, problems),
            proxy_protocol,
        },
        retries: settings.retries,
    }
}

/// The queue of clients that wait for a server with room. `has_clones`: clients may also wait for the start of a clone.
fn queue(
    pool: &Section<'_>,
    entries: &[ServerEntry],
    defaults: MemberConfig,
    has_clones: bool,
    problems: &mut Problems<'_>,
) -> Option<QueueLimits> {
    let (position, node) = pool.entry("queue")?;
    if value::is_off(node) {
        return None;
    }
    let section = Section::open(node, position, &keys::QUEUE, problems)?;
    let mut configs = entries.iter().map(|entry| entry.member_config).chain([defaults]);
    if !has_clones && configs.all(|config| config.sessions_max.is_none()) {
        let hint = "set `max_sessions` of the pool or of a server: a server without it is never full";
        problems.warning(position, "`queue` is never used", hint);
    }
    let clients_max = section.integer("max", QUEUE_CLIENTS, problems);
    Some(QueueLimits {
        clients_max: clients_max.map_or(QUEUE_CLIENTS_DEFAULT, |clients| clients as usize),
        timeout: section
            .duration("timeout", NONZERO_DURATION, problems)
            .unwrap_or(QUEUE_TIMEOUT_DEFAULT),
    })
}

/// The version of the PROXY header that the servers expect.
fn proxy_protocol(section: &Section<'_>, health: &HealthPlan, problems: &mut Problems<'_>) -> Option<Version> {
    let headers = [("off", None), ("v1", Some(Version::V1)), ("v2", Some(Version::V2))];
    let version = section.one_of("proxy_protocol", &headers, problems).unwrap_or(None);
    if version.is_some()
        && let Some((position, _)) = section.entry("proxy_protocol")
        && let Some(service) = health.service()
        && !service.accepts_proxy_header
    {
        let service = service.name;
        problems.warning(
            position,
            format!("{service} does not accept a PROXY header"),
            format!("remove it, unless something in front of {service} strips the header"),
        );
    }
    version
}

/// The fallback, used while the pool has no usable server. Whether a named pool exists is checked when all pools are
/// known.
///
/// `fallback = "primary"` means the pool of this name if there is one (`has_pool_primary`). Otherwise, in a pool with
/// `role = "replica"`, it means the primary among the pool's own servers. A role with an invalid value or a
/// misspelt key is reported elsewhere, and taken for "replica" here.
fn fallback(
    section: &Section<'_>,
    has_pool_primary: bool,
    required: RoleRequirement,
    problems: &mut Problems<'_>,
) -> Option<Fallback> {
    let node = section.get("fallback")?;
    let may_be_replica = match section.get("role") {
        Some(node) => ["any", "primary"].iter().all(|role| !value::is_text(node, role)),
        None => !section.is_missing("role"),
    };
    match &node.value {
        Value::String(name) if *name == *Fallback::Primary.name() && !has_pool_primary && may_be_replica => {
            if !required.single {
                let hint = "remove `single`, or use the name of another pool";
                problems.error(
                    &node.position,
                    "`single = false`: no server of the pool is its one primary",
                    hint,
                );
            }
            Some(Fallback::Primary)
        }
        Value::String(name) => Some(Fallback::Pool(name.as_str().into())),
        _ => None, // reported by `Pools::check_fallbacks`
    }
}

/// Whether a server that went down is used again automatically once its checks pass.
fn failback(section: &Section<'_>, is_checked: bool, problems: &mut Problems<'_>) -> Failback {
    let values = [("auto", Failback::Auto), ("manual", Failback::Manual)];
    let failback = section.one_of("failback", &values, problems).unwrap_or_default();
    if !is_checked
        && failback == Failback::Manual
        && let Some((position, _)) = section.entry("failback")
    {
        problems.warning(
            position,
            "`failback` is never used",
            "a server without checks never goes down",
        );
    }
    failback
}

/// Which sessions are closed when the state of a server changes.
fn severing(
    section: &Section<'_>,
    entries: &[ServerEntry],
    health: &HealthPlan,
    fallback: Option<&Fallback>,
    problems: &mut Problems<'_>,
) -> SeveringPlan {
    let values = [("keep", Sever::Keep), ("close", Sever::Close)];
    // Sessions on an old primary would go on to write to it.
    let on_down_default = if health.required.role == Some(Role::Primary) {
        Sever::Close
    } else {
        Sever::Keep
    };
    let plan = SeveringPlan {
        on_down: section.one_of("on_down", &values, problems).unwrap_or(on_down_default),
        on_lag: section.one_of("on_lag", &values, problems).unwrap_or_default(),
        on_recover: section.one_of("on_recover", &values, problems).unwrap_or_default(),
        on_leave: section
            .one_of("on_leave", &[("drain", Sever::Keep), ("close", Sever::Close)], problems)
            .unwrap_or_default(),
        close_over: section
            .duration("close_over", ANY_DURATION, problems)
            .unwrap_or(CLOSE_OVER_DEFAULT),
    };
    let clone_priority = (!section.is_missing("scale")).then(|| MemberConfig::default().priority);
    let priorities = || {
        entries
            .iter()
            .map(|entry| entry.member_config.priority)
            .chain(clone_priority)
    };
    let has_one_tier = priorities().next().is_some() // else the servers come from a source, and are not known yet
        && priorities().min() == priorities().max();
    let has_tiers = !has_one_tier || fallback.is_some();
    warn_of_unused_severing(section, plan, health, has_tiers, problems);
    plan
}

/// Warns about keys of `plan` that have no effect. `has_tiers`: some servers may be used only while others are down.
fn warn_of_unused_severing(
    section: &Section<'_>,
    plan: SeveringPlan,
    health: &HealthPlan,
    has_tiers: bool,
    problems: &mut Problems<'_>,
) {
    let unused = [
        (
            "close_over",
            "none of `on_down`, `on_lag`, `on_recover` and `on_leave` is \"close\"",
            !plan.is_on(),
        ),
        (
            "on_lag",
            "`max_lag` is not set",
            plan.on_lag == Sever::Close && health.required.max_lag.is_none(),
        ),
        (
            "on_down",
            "a server without checks never goes down",
            plan.on_down == Sever::Close && health.check.is_none(),
        ),
        (
            "on_recover",
            "all servers have the same `priority`",
            plan.on_recover == Sever::Close && !has_tiers,
        ),
    ];
    for (key, hint, is_unused) in unused {
        if is_unused && let Some((position, _)) = section.entry(key) {
            problems.warning(position, format!("`{key}` is never used"), hint);
        }
    }
}
