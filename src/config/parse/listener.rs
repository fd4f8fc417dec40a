//! `[listeners.NAME]`.

use std::collections::HashMap;
use std::sync::Arc;

use super::limits::ListenerSettings;
use super::{BoundAddresses, Names, Problems, Section, process, route, unused, value};
use crate::config::file::{KeyValue, Node, Value};
use crate::config::keys;
use crate::config::report::Position;
use crate::plan::{ListenerPlan, PoolId};
use crate::route::{Route, RouteTable};

/// Converts a listener. `None` if it is not a table.
pub(super) fn listener(
    entry: &KeyValue,
    inherited: ListenerSettings,
    names: &mut Names<'_, '_>,
    bound: &mut BoundAddresses,
    problems: &mut Problems<'_>,
) -> Option<ListenerPlan> {
    let section = Section::open(&entry.node, &entry.position, &keys::LISTENER, problems)?;
    let limits = inherited.overridden_by(&section, problems);
    let bind = section
        .required("bind", r#"bind = "0.0.0.0:443""#, problems)
        .map_or(&[][..], |node| value::one_or_many(node, problems));
    let bind = bind.iter().filter_map(|node| bound.add(node, problems)).collect();
    let routes = routes(&entry.key, &section, names, problems);
    let guards = names.guards.find(&section, problems);
    let pool = section.get("pool");
    let is_empty_list = |node: &Node| matches!(&node.value, Value::List(items) if items.is_empty());
    let are_routes_missing = section
        .get("routes")
        .map_or_else(|| section.is_missing("routes"), is_empty_list);
    if section.is_missing("pool") && are_routes_missing {
        problems.error(
            &entry.position,
            "this listener has neither `pool` nor `routes`",
            r#"add pool = "NAME""#,
        );
    }
    let pool = pool.and_then(|node| names.pools.find(node, problems));
    let table = RouteTable::new(routes, pool);
    unused::hello_limits(&section, table.needs_hello(), problems);
    unused::clients_without_hello(&table, &names.pools.in_order, &entry.position, problems);
    Some(ListenerPlan {
        name: entry.key.as_str().into(),
        bind,
        backlog: limits.backlog,
        max_connections: process::max_connections(&section, problems),
        guards,
        sniff: limits.sniff,
        routes: table,
        relay: limits.relay,
        socket: limits.socket,
    })
}

fn routes(
    listener: &str,
    section: &Section<'_>,
    names: &mut Names<'_, '_>,
    problems: &mut Problems<'_>,
) -> Vec<Route<PoolId>> {
    let items = section
        .get("routes")
        .and_then(|node| value::list(node, problems))
        .unwrap_or_default();
    let mut first_positions: HashMap<Arc<str>, &Position> = HashMap::new();
    let mut routes = Vec::with_capacity(items.len());
    let mut positions = Vec::with_capacity(items.len());
    for (index, node) in items.iter().enumerate() {
        let default_name = format!("{listener}#{}", index + 1);
        let Some(route) = route::route(&default_name, node, names, problems) else {
            continue;
        };
        if let Some(first) = first_positions.get(&route.name) {
            let hint = format!("first on {}", problems.describe_position(first));
            problems.error(&node.position, format!("duplicate route name `{}`", route.name), hint);
        } else {
            first_positions.insert(Arc::clone(&route.name), &node.position);
        }
        positions.push(&node.position);
        routes.push(route);
    }
    unused::shadowed_routes(&routes, &positions, problems);
    unused::default_pool(&routes, section.get("pool"), problems);
    routes
}
