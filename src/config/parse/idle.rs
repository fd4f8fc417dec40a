//! What can never match or is never used: warnings. Each is certain; not everything certain is found.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Mistakes, Section};
use crate::config::file::Node;
use crate::config::report::Place;
use crate::name::NamePattern;
use crate::plan::{ListenerPlan, PoolId, PoolPlan, RuntimePlan};
use crate::route::{Route, RouteTable};

type PoolRoute = Route<PoolId>;

/// Earlier routes of one name that are looked at: a file with many more would be read for minutes.
const RIVALS_MAX: usize = 1_000;

/// Routes, and names of routes, that an earlier route of the same rank always wins.
///
/// An earlier route wins a name of a later one when it has the same name (so the rank is the same), holds whenever
/// the later one holds, and has as many kinds of condition. More kinds it cannot have, for each would have to hold
/// whenever the later route holds.
pub(super) fn routes<'a>(routes: &'a [PoolRoute], places: &[&Place], m: &mut Mistakes<'_>) {
    // Of the routes so far: those without a name, and those that have a name.
    let mut nameless: Vec<&PoolRoute> = Vec::new();
    let mut named: HashMap<&NamePattern, Vec<&PoolRoute>> = HashMap::new();
    for (route, place) in routes.iter().zip(places) {
        let winner_among = |earlier: &[&'a PoolRoute]| {
            let mut first = earlier.iter().take(RIVALS_MAX).copied();
            first.find(|earlier| holds_whenever(earlier, route))
        };
        if route.sni.is_empty() {
            if let Some(winner) = winner_among(&nameless) {
                warn_route(route, winner, place, m);
            }
            nameless.push(route);
            continue;
        }
        let winner_of = |pattern| winner_among(named.get(pattern)?);
        let won: Vec<_> = route
            .sni
            .iter()
            .filter_map(|pattern| Some((pattern, winner_of(pattern)?)))
            .collect();
        for pattern in &route.sni {
            named.entry(pattern).or_default().push(route);
        }
        if won.len() == route.sni.len() {
            warn_route(route, won[0].1, place, m);
            continue;
        }
        for (pattern, winner) in won {
            let what = format!("`{pattern}` of route `{}` can never match", route.name);
            m.warn(place, what, format!("route `{}` takes it before", winner.name));
        }
    }
}

fn warn_route(route: &PoolRoute, winner: &PoolRoute, place: &Place, m: &mut Mistakes<'_>) {
    let what = format!("route `{}` can never match", route.name);
    m.warn(place, what, format!("route `{}` takes its clients before", winner.name));
}

/// Whether the conditions of `earlier` but for names hold whenever those of `later` do, and are of as many kinds.
fn holds_whenever(earlier: &PoolRoute, later: &PoolRoute) -> bool {
    let same_kinds =
        earlier.alpn.is_empty() == later.alpn.is_empty() && earlier.from.is_empty() == later.from.is_empty();
    let within = |net: &IpNet| earlier.from.iter().any(|wider| wider.contains(net));
    same_kinds && later.alpn.iter().all(|entry| earlier.alpn.contains(entry)) && later.from.iter().all(within)
}

/// A listener's pool that a route without conditions leaves nothing for.
pub(super) fn pool_behind(routes: &[PoolRoute], pool: Option<&Node>, m: &mut Mistakes<'_>) {
    let takes_all = |route: &&PoolRoute| route.sni.is_empty() && route.alpn.is_empty() && route.from.is_empty();
    if let (Some(pool), Some(route)) = (pool, routes.iter().find(takes_all)) {
        let label = format!("route `{}` takes everything", route.name);
        m.warn(&pool.place, "no client comes here", label);
    }
}

/// Bounds on a hello that is never read.
pub(super) fn hello_limits(listener: &Section<'_>, needs_hello: bool, m: &mut Mistakes<'_>) {
    if needs_hello {
        return;
    }
    for key in ["hello_timeout", "hello_max"] {
        if let Some((place, _)) = listener.entry(key) {
            let what = format!("`{key}` is never used");
            m.warn(place, what, "no route of this listener has `sni` or `alpn`");
        }
    }
}

/// A bound that another one keeps from being reached.
pub(super) fn connections(runtime: &RuntimePlan, plan: &ListenerPlan, place: &Place, m: &mut Mistakes<'_>) {
    if let (Some(all), Some(own)) = (runtime.max_connections, plan.max_connections)
        && own > all
    {
        let what = format!("`max_connections` of listener `{}` is never reached", plan.name);
        m.warn(place, what, format!("`[runtime]` allows {all}"));
    }
}

/// Pools of a service whose clients do not begin with a ClientHello, behind routes that need one.
pub(super) fn clients_without_hello(
    table: &RouteTable<PoolId>,
    pools: &[Arc<PoolPlan>],
    place: &Place,
    m: &mut Mistakes<'_>,
) {
    let mut targets = table.targets().map(|id| &pools[id.0]);
    if !table.needs_hello() {
        return;
    }
    let without_hello = |pool: &Arc<PoolPlan>| {
        let service = pool.health.service()?;
        Some((Arc::clone(pool), service.name, service.without_hello?))
    };
    if let Some((pool, service, label)) = targets.find_map(without_hello) {
        let what = format!(
            "pool `{}` is {service}, whose clients do not begin with a ClientHello",
            pool.name
        );
        m.warn(place, what, label);
    }
}
