//! `[listeners.NAME]`.

use std::collections::HashMap;
use std::sync::Arc;

use super::limits::ListenerLimits;
use super::{Bound, Mistakes, Pools, Section, idle, process, route, value};
use crate::config::file::{Entry, Node, Value};
use crate::config::keys;
use crate::config::report::Place;
use crate::plan::{ListenerPlan, PoolId};
use crate::route::{Route, RouteTable};

/// Reads a listener; `None` if it is no table.
pub(super) fn listener(
    entry: &Entry,
    inherited: ListenerLimits,
    pools: &mut Pools<'_>,
    bound: &mut Bound,
    m: &mut Mistakes<'_>,
) -> Option<ListenerPlan> {
    let section = Section::open(&entry.node, &entry.place, &keys::LISTENER, m)?;
    let limits = inherited.overlaid(&section, m);
    let bind = section
        .required("bind", r#"bind = "0.0.0.0:443""#, m)
        .map_or(&[][..], |node| value::one_or_many(node, m));
    let bind = bind.iter().filter_map(|node| bound.take(node, m)).collect();
    let routes = routes(&entry.key, &section, pools, m);
    let pool = section.get("pool");
    let no_routes = |node: &Node| matches!(&node.value, Value::List(items) if items.is_empty());
    let lacks_routes = section.get("routes").map_or_else(|| section.lacks("routes"), no_routes);
    if section.lacks("pool") && lacks_routes {
        m.say(
            &entry.place,
            "this listener has neither `pool` nor `routes`",
            r#"add pool = "NAME""#,
        );
    }
    let pool = pool.and_then(|node| pools.find(node, m));
    let table = RouteTable::new(routes, pool);
    idle::hello_limits(&section, table.needs_hello(), m);
    idle::clients_without_hello(&table, &pools.in_order, &entry.place, m);
    Some(ListenerPlan {
        name: entry.key.as_str().into(),
        bind,
        backlog: limits.backlog,
        max_connections: process::max_connections(&section, m),
        sniff: limits.sniff,
        routes: table,
        relay: limits.relay,
        socket: limits.socket,
    })
}

fn routes(listener: &str, section: &Section<'_>, pools: &mut Pools<'_>, m: &mut Mistakes<'_>) -> Vec<Route<PoolId>> {
    let items = section
        .get("routes")
        .and_then(|node| value::list(node, m))
        .unwrap_or_default();
    let mut first_of: HashMap<Arc<str>, &Place> = HashMap::new();
    let mut routes = Vec::with_capacity(items.len());
    let mut places = Vec::with_capacity(items.len());
    for (index, node) in items.iter().enumerate() {
        let usual = format!("{listener}#{}", index + 1);
        let Some(route) = route::route(&usual, node, pools, m) else {
            continue;
        };
        if let Some(first) = first_of.get(&route.name) {
            let label = format!("already on {}", m.point_to(first));
            m.say(&node.place, format!("two routes are called `{}`", route.name), label);
        } else {
            first_of.insert(Arc::clone(&route.name), &node.place);
        }
        places.push(&node.place);
        routes.push(route);
    }
    idle::routes(&routes, &places, m);
    idle::pool_behind(&routes, section.get("pool"), m);
    routes
}
