//! The keys of the configuration whose values differ between two plans.
//!
//! Plans are destructured without `..`, so that the compiler asks for the key of every new field. A field without a key
//! would change without being reported.

mod checks;
mod guard;

use std::fmt::Debug;
use std::sync::Arc;

use super::{
    AdminPlan, ListenerPlan, LogPlan, Plan, PoolId, PoolPlan, Protocol, RuntimePlan, ServerEntry, SeveringPlan,
    UnplacedCancel,
};
use crate::dial::{ConnectOptions, DialLimits};
use crate::guard::GuardId;
use crate::pool::{EjectLimits, PoolRules};
use crate::relay::RelayLimits;
use crate::route::{Route, Target};
use crate::sniff::SniffLimits;
use crate::socket::SocketOptions;
use crate::tls::ListenerTlsPlan;
use checks::{differing_of_checks, of_health};

/// A key, and its value as text for comparison.
type Setting = (&'static str, String);

fn setting(key: &'static str, value: &dyn Debug) -> Setting {
    (key, format!("{value:?}"))
}

fn differing(old: Vec<Setting>, new: &[Setting]) -> Vec<&'static str> {
    let pairs = old.into_iter().zip(new);
    pairs
        .filter(|(old, new)| old.1 != new.1)
        .map(|(old, _)| old.0)
        .collect()
}

impl Plan {
    /// Keys of `[runtime]`, `[admin]` and `[log]` whose values differ and take effect without a restart.
    #[must_use]
    pub fn changed_settings(&self, next: &Self) -> Vec<&'static str> {
        differing(self.settings(), &next.settings())
    }

    fn settings(&self) -> Vec<Setting> {
        let RuntimePlan {
            workers: _,
            max_connections,
            hello_bytes_max,
            drain_timeout,
            drain_delay,
            watch,
        } = &self.runtime;
        let AdminPlan {
            bind: _,
            hosts,
            token_file,
            socket: _,
        } = &self.admin;
        let LogPlan { format, level, access } = &self.log;
        vec![
            setting("runtime.max_connections", max_connections),
            setting("runtime.hello_memory", hello_bytes_max),
            setting("runtime.drain_timeout", drain_timeout),
            setting("runtime.drain_delay", drain_delay),
            setting("runtime.watch", watch),
            setting("admin.hosts", hosts),
            setting("admin.token_file", token_file),
            setting("log.format", format),
            setting("log.level", level),
            setting("log.access", access),
        ]
    }
}

impl PoolPlan {
    /// Keys whose values differ. `servers` is among them if servers were added or removed; servers that are in both but
    /// differ are returned by [`Self::changed_servers`].
    #[must_use]
    pub fn changed(&self, next: &Self) -> Vec<&'static str> {
        let mut keys = differing(self.settings(), &next.settings());
        keys.extend(differing_of_checks(&self.health, &next.health));
        let written = |pool: &Self| -> Vec<_> {
            let entries = pool.entries.iter();
            entries
                .map(|entry| (Arc::clone(entry.label()), entry.location.clone()))
                .collect()
        };
        if written(self) != written(next) {
            keys.push("servers");
        }
        keys
    }

    /// Servers that are in both plans of the pool, by name as configured, each with its keys whose values differ.
    #[must_use]
    pub fn changed_servers(&self, next: &Self) -> Vec<(Arc<str>, Vec<&'static str>)> {
        let before = |entry: &ServerEntry| {
            let same = |old: &&ServerEntry| (old.label(), &old.location) == (entry.label(), &entry.location);
            self.entries.iter().find(same).map(|old| old.member_config)
        };
        let changed = |entry: &ServerEntry| {
            let (old, new) = (before(entry)?, entry.member_config);
            let keys = [
                ("weight", old.weight != new.weight),
                ("priority", old.priority != new.priority),
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
            failback,
            fallback,
            entries: _,
            resolve_interval,
            resolve,
            direct_tls,
        } = self;
        let PoolRules {
            policy,
            eject,
            connect_timeout: _, // that of `dial`
            slow_start,
            panic_threshold,
        } = rules;
        let DialLimits {
            connect:
                ConnectOptions {
                    timeout,
                    socket,
                    proxy_protocol,
                },
            retries,
        } = dial;
        let SeveringPlan {
            on_down,
            on_lag,
            on_recover,
            close_over,
        } = severing;
        let mut settings = vec![
            setting("balance", policy),
            setting("connect_timeout", timeout),
            setting("retries", retries),
            setting("proxy_protocol", proxy_protocol),
            setting("resolve_interval", resolve_interval),
            setting("resolve", resolve),
            setting("direct", direct_tls),
            setting("slow_start", slow_start),
            setting("on_down", on_down),
            setting("on_lag", on_lag),
            setting("on_recover", on_recover),
            setting("close_over", close_over),
            setting("failback", failback),
            setting("fallback", fallback),
            setting("health.panic_threshold", panic_threshold),
        ];
        settings.extend(of_socket(socket));
        settings.extend(of_ejection(eject));
        settings.extend(of_health(health));
        settings
    }
}

fn of_socket(socket: &SocketOptions) -> [Setting; 2] {
    let SocketOptions {
        keepalive,
        user_timeout,
    } = socket;
    [setting("keepalive", keepalive), setting("user_timeout", user_timeout)]
}

fn of_ejection(eject: &EjectLimits) -> [Setting; 5] {
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

impl ListenerPlan {
    /// Keys whose values differ in the next plan of the listener. `plan` and `next_plan` are those that the two are in; pools
    /// and guards are compared by name.
    #[must_use]
    pub fn changed(&self, plan: &Plan, next: &Self, next_plan: &Plan) -> Vec<&'static str> {
        let mut keys = differing(self.settings(), &next.settings());
        let is_same_pool = |old: &PoolId, new: &PoolId| plan.pools[*old].name == next_plan.pools[*new].name;
        let are_same_guards = |old: &[GuardId], new: &[GuardId]| plan.guard_names(old).eq(next_plan.guard_names(new));
        let has_same_default = match (self.routes.default(), next.routes.default()) {
            (Some(old), Some(new)) => is_same_pool(old, new),
            (None, None) => true,
            _ => false,
        };
        if !has_same_default {
            keys.push("pool");
        }
        if !are_same_guards(&self.guards, &next.guards) {
            keys.push("guards");
        }
        let (old, new) = (self.routes.routes(), next.routes.routes());
        let is_same = |(old, new): (&Route<PoolId>, &Route<PoolId>)| {
            is_same_route(old, new, is_same_pool) && are_same_guards(&old.guards, &new.guards)
        };
        if old.len() != new.len() || !old.iter().zip(new).all(is_same) {
            keys.push("routes");
        }
        keys
    }

    fn settings(&self) -> Vec<Setting> {
        let Self {
            name: _,
            bind,
            backlog,
            max_connections,
            accept_proxy,
            guards: _, // compared by the caller, like the routes
            protocol,
            redirect,
            sniff: SniffLimits {
                hello_timeout,
                hello_bytes_max,
            },
            routes: _, // compared by the caller: there may be very many
            tls,
            relay: RelayLimits {
                idle_timeout,
                half_close_timeout,
            },
            socket,
        } = self;
        let (protocol, tls_required, cancel_unplaced) = match protocol {
            Protocol::Postgres {
                tls_required,
                cancel_unplaced,
            } => ("postgres", *tls_required, *cancel_unplaced),
            Protocol::Tcp => ("tcp", false, UnplacedCancel::Drop),
            Protocol::Mysql => ("mysql", false, UnplacedCancel::Drop),
            Protocol::Redis => ("redis", false, UnplacedCancel::Drop),
        };
        let mut settings = vec![
            setting("bind", bind),
            setting("backlog", backlog),
            setting("accept_proxy", accept_proxy),
            setting("max_connections", max_connections),
            setting("protocol", &protocol),
            setting("tls_required", &tls_required),
            setting("cancel_unplaced", &cancel_unplaced),
            setting("redirect", redirect),
            setting("hello_timeout", hello_timeout),
            setting("hello_max", hello_bytes_max),
            setting("idle_timeout", idle_timeout),
            setting("half_close_timeout", half_close_timeout),
        ];
        settings.extend(of_socket(socket));
        settings.extend(of_tls(tls.as_ref()));
        settings
    }
}

fn of_tls(tls: Option<&ListenerTlsPlan>) -> [Setting; 5] {
    let (certificates, alpn, min_version, client_auth, tickets) = match tls {
        None => Default::default(),
        Some(ListenerTlsPlan {
            certificates,
            alpn,
            min_version,
            client_auth,
            tickets,
            route_alpn: _, // of the routes
        }) => (
            Some(certificates),
            Some(alpn),
            Some(min_version),
            Some(client_auth),
            Some(tickets),
        ),
    };
    [
        setting("tls.certificates", &certificates),
        setting("tls.alpn", &alpn),
        setting("tls.min_version", &min_version),
        setting("tls.client_auth", &client_auth),
        setting("tls.tickets", &tickets),
    ]
}

fn is_same_route(old: &Route<PoolId>, new: &Route<PoolId>, is_same_pool: impl Fn(&PoolId, &PoolId) -> bool) -> bool {
    let Route {
        name,
        sni,
        alpn,
        from,
        tls,
        database,
        user,
        guards: _, // compared by the caller: they are indices of their plans
        to,
    } = old;
    let same_target = match (to, &new.to) {
        (Target::Pool(old), Target::Pool(new)) => is_same_pool(old, new),
        (Target::Refuse, Target::Refuse) => true,
        _ => false,
    };
    same_target
        && (name, sni, alpn, from, tls) == (&new.name, &new.sni, &new.alpn, &new.from, &new.tls)
        && (database, user) == (&new.database, &new.user)
}
