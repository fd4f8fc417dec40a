//! The keys of the configuration whose values differ between two plans.
//!
//! A plan is destructured without `..`, so that the compiler asks for the key of every new field: a field without a key
//! would change without being reported. Some plans, such as that of `[remote]`, are compared whole instead, as one key.

mod checks;
mod guard;
mod listener;

use std::fmt::Debug;
use std::sync::Arc;

use super::{AdminPlan, DiscoverPlan, LogPlan, Plan, PoolPlan, RetirePlan, RuntimePlan, ServerEntry, SeveringPlan};
use crate::dial::{ConnectOptions, DialOptions};
use crate::pool::{EjectLimits, MemberConfig, PoolRules};
use crate::scale::ScalePlan;
use crate::socket::SocketOptions;
use checks::{differing_check_keys, health_settings};

/// A key, and its value as text for comparison.
type Setting = (&'static str, String);

fn setting(key: &'static str, value: &dyn Debug) -> Setting {
    (key, format!("{value:?}"))
}

/// The keys whose values differ. Both lists have the same keys in the same order.
fn differing(old: Vec<Setting>, new: &[Setting]) -> Vec<&'static str> {
    let pairs = old.into_iter().zip(new);
    let differing = pairs.filter(|((_, old), (_, new))| old != new);
    differing.map(|((key, _), _)| key).collect()
}

impl Plan {
    /// Keys of `[runtime]`, `[admin]`, `[log]`, `[remote]` and `[acme]` whose values differ and take effect without a
    /// restart.
    #[must_use]
    pub fn changed_settings(&self, next: &Self) -> Vec<&'static str> {
        differing(self.settings(), &next.settings())
    }

    fn settings(&self) -> Vec<Setting> {
        let RuntimePlan {
            workers: _,
            max_connections,
            hello_memory_bytes,
            drain_timeout,
            drain_delay,
            watch,
        } = &self.runtime;
        let AdminPlan {
            bind: _,
            hosts,
            token_file,
            tls,
            socket: _,
        } = &self.admin;
        let LogPlan { format, level, access } = &self.log;
        vec![
            setting("runtime.max_connections", max_connections),
            setting("runtime.hello_memory", hello_memory_bytes),
            setting("runtime.drain_timeout", drain_timeout),
            setting("runtime.drain_delay", drain_delay),
            setting("runtime.watch", watch),
            setting("admin.hosts", hosts),
            setting("admin.token_file", token_file),
            setting("admin.tls", tls),
            setting("log.format", format),
            setting("log.level", level),
            setting("log.access", access),
            setting("remote", &self.remote),
            setting("acme", &self.acme),
        ]
    }
}

impl PoolPlan {
    /// Keys of the pool whose values differ. `servers` is among them if servers were added or removed, or if their
    /// order differs. [`Self::changed_servers`] returns the keys of single servers.
    #[must_use]
    pub fn changed(&self, next: &Self) -> Vec<&'static str> {
        let mut keys = differing(self.settings(), &next.settings());
        keys.extend(differing_check_keys(&self.health, &next.health));
        let labels_and_locations = |pool: &Self| -> Vec<_> {
            let entries = pool.entries.iter();
            entries
                .map(|entry| (Arc::clone(entry.label()), entry.location.clone()))
                .collect()
        };
        if labels_and_locations(self) != labels_and_locations(next) {
            keys.push("servers");
        }
        keys
    }

    /// The servers whose keys differ between the plans: the label of each, and these keys. A server is in both plans if
    /// its label and its location are the same.
    #[must_use]
    pub fn changed_servers(&self, next: &Self) -> Vec<(Arc<str>, Vec<&'static str>)> {
        let before = |entry: &ServerEntry| {
            let is_same = |old: &&ServerEntry| (old.label(), &old.location) == (entry.label(), &entry.location);
            self.entries.iter().find(is_same).map(|old| old.member_config)
        };
        let changed = |entry: &ServerEntry| {
            let MemberConfig {
                weight,
                priority,
                sessions_max,
                is_draining: _, // set by `discover`, never by the configuration
            } = before(entry)?;
            let new = entry.member_config;
            let keys = [
                ("weight", weight != new.weight),
                ("priority", priority != new.priority),
                ("max_sessions", sessions_max != new.sessions_max),
            ];
            let keys: Vec<_> = keys
                .iter()
                .filter(|(_, differs)| *differs)
                .map(|(key, _)| *key)
                .collect();
            (!keys.is_empty()).then(|| (Arc::clone(entry.label()), keys))
        };
        next.entries.iter().filter_map(changed).collect()
    }

    fn settings(&self) -> Vec<Setting> {
        let Self {
            name: _,
            rules,
            dial,
            health,
            severing,
            retiring,
            failback,
            fallback,
            scale,
            entries: _,
            defaults,
            discover,
            resolve_interval,
            resolve,
            direct_tls,
            tls,
        } = self;
        let DialOptions {
            connect:
                ConnectOptions {
                    timeout,
                    socket,
                    source,
                    proxy_protocol,
                },
            retries,
        } = dial;
        let discover = discover.as_ref().map(discover_settings);
        let scale = scale.as_deref().map(scale_settings);
        let mut settings = vec![
            setting("max_sessions", &defaults.sessions_max),
            setting("connect_timeout", timeout),
            setting("retries", retries),
            setting("discover", &discover),
            setting("bind_source", source),
            setting("proxy_protocol", proxy_protocol),
            setting("resolve_interval", resolve_interval),
            setting("resolve", resolve),
            setting("direct", direct_tls),
            setting("tls", tls),
            setting("failback", failback),
            setting("fallback", fallback),
            setting("scale", &scale),
        ];
        settings.extend(rule_settings(rules));
        settings.extend(socket_settings(socket));
        settings.extend(severing_settings(severing));
        settings.extend(retire_settings(retiring));
        settings.extend(health_settings(health));
        settings
    }
}

/// The values of `discover`. The defaults of listed servers are values of the pool.
fn discover_settings(plan: &DiscoverPlan) -> impl Debug {
    let DiscoverPlan {
        source,
        settle,
        allow_empty,
        allow_unix,
        defaults: _,
    } = plan;
    (source, settle, allow_empty, allow_unix)
}

/// The values of `scale`. `member_config` is the pool's `defaults`, which [`PoolPlan::settings`] compares.
fn scale_settings(plan: &ScalePlan) -> impl Debug {
    let ScalePlan {
        rules,
        kind,
        member_config: _,
        drain,
        start_timeout,
        replace_after,
    } = plan;
    (rules, kind, drain, start_timeout, replace_after)
}

fn rule_settings(rules: &PoolRules) -> Vec<Setting> {
    let PoolRules {
        policy,
        eject,
        connect_timeout: _, // that of `dial`
        slow_start,
        panic_threshold,
        queue,
        wake: _,             // follows from `scale`
        waits_for_return: _, // follows from `queue`, `fallback` and `scale`
    } = rules;
    let mut settings = vec![
        setting("balance", policy),
        setting("slow_start", slow_start),
        setting("queue", queue),
        setting("health.panic_threshold", panic_threshold),
    ];
    settings.extend(ejection_settings(eject));
    settings
}

fn severing_settings(severing: &SeveringPlan) -> [Setting; 5] {
    let SeveringPlan {
        on_down,
        on_lag,
        on_recover,
        on_leave,
        close_over,
    } = severing;
    [
        setting("on_down", on_down),
        setting("on_lag", on_lag),
        setting("on_recover", on_recover),
        setting("on_leave", on_leave),
        setting("close_over", close_over),
    ]
}

fn retire_settings(retiring: &RetirePlan) -> [Setting; 3] {
    let RetirePlan {
        max_age,
        rebalance,
        idle_for,
    } = retiring;
    [
        setting("max_session_age", max_age),
        setting("rebalance", rebalance),
        setting("idle_for", idle_for),
    ]
}

fn socket_settings(socket: &SocketOptions) -> [Setting; 2] {
    let SocketOptions {
        keepalive,
        user_timeout,
    } = socket;
    [setting("keepalive", keepalive), setting("user_timeout", user_timeout)]
}

fn ejection_settings(eject: &EjectLimits) -> [Setting; 5] {
    let EjectLimits {
        after,
        first,
        longest,
        percent_max,
        on_reset,
    } = eject;
    [
        setting("health.eject_after", after),
        setting("health.eject_for", first),
        setting("health.eject_max_for", longest),
        setting("health.eject_max_percent", percent_max),
        setting("health.eject_on_reset", on_reset),
    ]
}
