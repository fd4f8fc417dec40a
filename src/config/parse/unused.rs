//! Warnings about valid settings that never match, are never used, or do not fit the service of a pool. Settings that
//! never match or are never used are reported without false positives, but some cases are not found.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Problems, Section};
use crate::check::postgres;
use crate::config::file::Node;
use crate::config::report::Position;
use crate::glob::Glob;
use crate::name::NamePattern;
use crate::plan::{ListenerPlan, PoolId, PoolPlan, Protocol, RuntimePlan};
use crate::route::{Route, RouteTable, TlsMode};

type PoolRoute = Route<PoolId>;

/// The maximum number of earlier routes that a route is compared with, for each of its `sni` patterns. For a route
/// without `sni`, it is the maximum in total. Without this bound, checking a long file would take minutes.
const EARLIER_ROUTES_MAX: usize = 1_000;

/// Warns about routes, and `sni` patterns of routes, over which an earlier route always wins.
///
/// For a pattern, an earlier route always wins over a later one if three things are true: both routes have the pattern,
/// both have the same kinds of conditions, and the earlier route's other conditions hold whenever those of the later
/// route hold. If the earlier route had fewer kinds, it would lose. If it had more, some clients would match only the
/// later route.
pub(super) fn shadowed_routes<'a>(routes: &'a [PoolRoute], positions: &[&Position], problems: &mut Problems<'_>) {
    // The earlier routes: those without `sni`, and those with each pattern.
    let mut without_sni: Vec<&PoolRoute> = Vec::new();
    let mut by_pattern: HashMap<&NamePattern, Vec<&PoolRoute>> = HashMap::new();
    for (route, position) in routes.iter().zip(positions) {
        let winner_among = |earlier: &[&'a PoolRoute]| {
            let mut first = earlier.iter().take(EARLIER_ROUTES_MAX).copied();
            first.find(|earlier| is_implied_by(earlier, route))
        };
        if route.sni.is_empty() {
            if let Some(winner) = winner_among(&without_sni) {
                warn_shadowed(route, winner, position, problems);
            }
            without_sni.push(route);
            continue;
        }
        let winner_of = |pattern| winner_among(by_pattern.get(pattern)?);
        let shadowed: Vec<_> = route
            .sni
            .iter()
            .filter_map(|pattern| Some((pattern, winner_of(pattern)?)))
            .collect();
        for pattern in &route.sni {
            by_pattern.entry(pattern).or_default().push(route);
        }
        if shadowed.len() == route.sni.len() {
            warn_shadowed(route, shadowed[0].1, position, problems);
            continue;
        }
        for (pattern, winner) in shadowed {
            let message = format!("`{pattern}` of route `{}` never matches", route.name);
            problems.warning(position, message, format!("route `{}` matches first", winner.name));
        }
    }
}

fn warn_shadowed(route: &PoolRoute, winner: &PoolRoute, position: &Position, problems: &mut Problems<'_>) {
    let message = format!("route `{}` never matches", route.name);
    problems.warning(position, message, format!("route `{}` matches first", winner.name));
}

/// Whether the conditions of `earlier` other than `sni` hold whenever those of `later` hold, and are of the same kinds.
fn is_implied_by(earlier: &PoolRoute, later: &PoolRoute) -> bool {
    let missing_kinds = |route: &PoolRoute| {
        [
            route.alpn.is_empty(),
            route.from.is_empty(),
            route.database.is_empty(),
            route.user.is_empty(),
        ]
    };
    let within = |net: &IpNet| earlier.from.iter().any(|wider| wider.contains(net));
    let covered =
        |wide: &[Glob], narrow: &[Glob]| narrow.iter().all(|entry| wide.iter().any(|glob| glob.covers(entry)));
    missing_kinds(earlier) == missing_kinds(later)
        && later.alpn.iter().all(|entry| earlier.alpn.contains(entry))
        && later.from.iter().all(within)
        && covered(&earlier.database, &later.database)
        && covered(&earlier.user, &later.user)
}

/// Warns about routes with `database` or `user` that match no session, because both are encrypted within TLS that is
/// passed on. Such a route gets no warning if it can match sessions without TLS.
pub(super) fn routes_by_encrypted_login(
    routes: &[PoolRoute],
    positions: &[&Position],
    protocol: Protocol,
    terminates_tls: bool,
    problems: &mut Problems<'_>,
) {
    for (route, position) in routes.iter().zip(positions) {
        let has_login_conditions = !route.database.is_empty() || !route.user.is_empty();
        let reads_login_in_tls = terminates_tls && route.tls == TlsMode::Terminate;
        let hint = if !has_login_conditions || reads_login_in_tls {
            continue;
        } else if matches!(protocol, Protocol::Postgres { tls_required: true, .. }) {
            "`database` and `user` are encrypted, and `tls_required` refuses sessions in the clear"
        } else if !route.sni.is_empty() || !route.alpn.is_empty() {
            "`sni` and `alpn` match only clients with TLS, whose `database` and `user` are encrypted"
        } else {
            continue;
        };
        problems.warning(position, format!("route `{}` never matches", route.name), hint);
    }
}

/// Warns about the key `pool` of a listener if one of its routes matches every client.
pub(super) fn default_pool(routes: &[PoolRoute], pool: Option<&Node>, problems: &mut Problems<'_>) {
    let matches_all = |route: &&PoolRoute| {
        let matches_all_logins = route.database.is_empty() && route.user.is_empty();
        route.sni.is_empty() && route.alpn.is_empty() && route.from.is_empty() && matches_all_logins
    };
    if let (Some(pool), Some(route)) = (pool, routes.iter().find(matches_all)) {
        let hint = format!("route `{}` matches every client", route.name);
        problems.warning(&pool.position, "`pool` is never used", hint);
    }
}

/// Warns about `hello_timeout` and `hello_max` of a listener that does not use them.
pub(super) fn hello_limits(listener: &Section<'_>, uses_hello_limits: bool, problems: &mut Problems<'_>) {
    if uses_hello_limits {
        return;
    }
    for key in ["hello_timeout", "hello_max"] {
        if let Some((position, _)) = listener.entry(key) {
            let message = format!("`{key}` is never used");
            problems.warning(position, message, "no route of this listener has `sni` or `alpn`");
        }
    }
}

/// Warns if `max_connections` of a listener is above that of the process.
pub(super) fn connection_limit(
    runtime: &RuntimePlan,
    plan: &ListenerPlan,
    position: &Position,
    problems: &mut Problems<'_>,
) {
    if let (Some(all), Some(own)) = (runtime.max_connections, plan.max_connections)
        && own > all
    {
        let message = format!("`max_connections` of listener `{}` is never reached", plan.name);
        problems.warning(position, message, format!("`[runtime]` allows {all}"));
    }
}

/// Warns about a listener with a pool that may have several PostgreSQL servers: a request to cancel a query may reach
/// any of them, not only the server of its session.
pub(super) fn stray_cancels(
    table: &RouteTable<PoolId>,
    pools: &[Arc<PoolPlan>],
    position: &Position,
    problems: &mut Problems<'_>,
) {
    let may_misdirect = |pool: &&Arc<PoolPlan>| {
        let check = pool.health.check.as_ref();
        let is_postgres = check.is_some_and(|check| check.kind().name == postgres::KIND.name);
        // A host name, a source of servers and clones may each give several servers.
        is_postgres && (pool.entries.len() > 1 || pool.names().next().is_some() || pool.lister().is_some())
    };
    if let Some(pool) = table.targets().map(|id| &pools[id.0]).find(may_misdirect) {
        problems.warning(
            position,
            format!(
                "requests to cancel a query may reach another server of pool `{}`",
                pool.name
            ),
            r#"add protocol = "postgres", so that they reach the server of the session"#,
        );
    }
}

/// Warns about a listener that needs a ClientHello but has a pool of a service whose clients do not begin with one.
pub(super) fn clients_without_hello(
    table: &RouteTable<PoolId>,
    pools: &[Arc<PoolPlan>],
    position: &Position,
    problems: &mut Problems<'_>,
) {
    let mut targets = table.targets().map(|id| &pools[id.0]);
    let without_hello = |pool: &Arc<PoolPlan>| {
        let service = pool.health.service()?;
        Some((Arc::clone(pool), service.name, service.hint_without_hello?))
    };
    if let Some((pool, service, hint)) = targets.find_map(without_hello) {
        let message = format!(
            "clients of the {service} pool `{}` do not begin with a ClientHello",
            pool.name
        );
        problems.warning(position, message, hint);
    }
}
