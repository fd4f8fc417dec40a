//! `[listeners.NAME]`.

use std::collections::HashMap;
use std::sync::Arc;

use super::limits::ListenerSettings;
use super::{BoundAddresses, Pools, Problems, Section, process, route, tls, unused, value};
use crate::config::file::{KeyValue, Node, Value};
use crate::config::keys;
use crate::config::report::Position;
use crate::plan::{ListenerPlan, PoolId};
use crate::route::{Route, RouteTable, TlsMode};
use crate::tls::Protocols;

/// Converts a listener. `None` if it is not a table.
pub(super) fn listener(
    entry: &KeyValue,
    inherited: ListenerSettings,
    pools: &mut Pools<'_>,
    bound: &mut BoundAddresses,
    problems: &mut Problems<'_>,
) -> Option<ListenerPlan> {
    let section = Section::open(&entry.node, &entry.position, &keys::LISTENER, problems)?;
    let limits = inherited.overridden_by(&section, problems);
    let bind = section
        .required("bind", r#"bind = "0.0.0.0:443""#, problems)
        .map_or(&[][..], |node| value::one_or_many(node, problems));
    let bind = bind.iter().filter_map(|node| bound.add(node, problems)).collect();
    let mut tls = tls::listener_tls(&section, problems);
    let has_certificates = section.entry("tls").is_some();
    let routes = routes(&entry.key, &section, has_certificates, pools, problems);
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
    let pool = pool.and_then(|node| pools.find(node, problems));
    if let (Some((position, _)), Some(tls)) = (section.entry("tls"), &mut tls) {
        tls::unused_certificates(tls, &routes, pool.is_some(), position, problems);
        tls.route_alpn = route_alpn(&routes);
    }
    let mut table = RouteTable::new(routes, pool);
    if has_certificates {
        table = table.terminating_by_default();
    }
    unused::hello_limits(&section, table.needs_hello(), problems);
    unused::clients_without_hello(&table, &pools.in_order, &entry.position, problems);
    Some(ListenerPlan {
        name: entry.key.as_str().into(),
        bind,
        backlog: limits.backlog,
        max_connections: process::max_connections(&section, problems),
        sniff: limits.sniff,
        routes: table,
        tls,
        relay: limits.relay,
        socket: limits.socket,
    })
}

fn routes(
    listener: &str,
    section: &Section<'_>,
    terminates: bool,
    pools: &mut Pools<'_>,
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
        let Some(route) = route::route(&default_name, node, terminates, pools, problems) else {
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

/// The lists of protocols that routes agree on instead of the listener's, each once.
fn route_alpn(routes: &[Route<PoolId>]) -> Vec<Protocols> {
    let own = |route: &&Route<PoolId>| route.tls == TlsMode::Terminate && !route.alpn.is_empty();
    let mut lists: Vec<_> = routes.iter().filter(own).map(|route| route.alpn.clone()).collect();
    lists.sort();
    lists.dedup();
    lists
}
