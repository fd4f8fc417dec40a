//! `[listeners.NAME]`.

use std::collections::HashMap;
use std::sync::Arc;

use super::limits::ListenerSettings;
use super::redirect::{self, UnresolvedRedirect};
use super::route::ListenerKind;
use super::{
    BoundAddresses, Names, Problems, Section, accept_proxy, announce, double_tls, process, route, tls, unused, value,
};
use crate::addr::ListenAddr;
use crate::config::file::{KeyValue, Value};
use crate::config::keys;
use crate::config::report::Position;
use crate::plan::{AnnouncePlan, ListenerPlan, PoolId, PoolPlan, Protocol, ServerEntry, UnplacedCancel};
use crate::route::{Route, RouteTable};
use crate::tls::{ClientAuthPlan, ListenerTlsPlan};
use crate::units::parse_file_mode;

/// Converts a listener. Its redirect is returned separately, because it may name a later listener. `None` if the
/// listener is not a table.
pub(super) fn listener<'a>(
    entry: &'a KeyValue,
    inherited: ListenerSettings,
    names: &mut Names<'_, '_>,
    bound: &mut BoundAddresses,
    problems: &mut Problems<'_>,
) -> Option<(ListenerPlan, Option<UnresolvedRedirect<'a>>)> {
    let section = Section::open(&entry.node, &entry.position, &keys::LISTENER, problems)?;
    let settings = inherited.overridden_by(&section, problems);
    let bind = section
        .required("bind", r#"bind = "0.0.0.0:443""#, problems)
        .map_or(&[][..], |node| value::one_or_many(node, problems));
    let bind: Vec<ListenAddr> = bind.iter().filter_map(|node| bound.add(node, problems)).collect();
    let mut kind = kind(&section, problems);
    let mut tls = tls::listener_tls(&section, kind.protocol, names.acme, problems);
    kind.protocol = with_tls_required(kind.protocol, tls.as_ref(), &section, problems);
    let (routes, positions) = routes(&entry.key, &section, kind, names, problems);
    let guards = names.guards.find(&section, problems);
    let redirect = redirect::redirect(&section, problems);
    report_missing_target(&section, &entry.position, problems);
    let pool = section.get("pool").and_then(|node| names.pools.find(node, problems));
    let announce = announce::announce(&section, names, kind, problems);
    if let (Some((position, _)), Some(tls)) = (section.entry("tls"), &mut tls) {
        let has_other_targets = pool.is_some() || announce.is_some();
        tls::unused_certificates(tls, &routes, has_other_targets, position, problems);
        tls::set_alpn(tls, &routes, kind.protocol);
    }
    let table = route_table(routes, pool, kind, announce.as_ref(), &entry.position, problems);
    let pools = &*names.pools;
    reject_own_servers(&bind, &table, &pools.in_order, &entry.position, problems);
    let accept_proxy = accept_proxy::accept_proxy(&section, &bind, problems);
    // `hello_timeout` and `hello_max` also limit the first message of a PostgreSQL client. `hello_timeout` also limits
    // the time for a PROXY header.
    let uses_hello_limits = table.needs_hello() || kind.protocol.is_postgres() || accept_proxy.is_some();
    unused::hello_limits(&section, uses_hello_limits, problems);
    double_tls::reject((&entry.key, &section), kind, (&table, &positions), pools, problems);
    warn_of_wrong_protocol(&table, kind, &pools.in_order, section.position(), problems);
    let plan = ListenerPlan {
        name: entry.key.as_str().into(),
        unix_mode: unix_mode(&section, &bind, problems),
        bind,
        backlog: settings.backlog,
        max_connections: process::max_connections(&section, problems),
        accept_proxy,
        guards,
        protocol: kind.protocol,
        redirect: None, // set by redirect::resolve
        sniff: settings.sniff,
        routes: table,
        announce,
        tls,
        relay: settings.relay_of(kind.protocol),
        socket: settings.socket,
    };
    Some((plan, redirect))
}

/// The table of the routes. It needs the ClientHello also if the listener terminates TLS by default, or if routes may
/// be announced later.
fn route_table(
    routes: Vec<Route<PoolId>>,
    default: Option<PoolId>,
    kind: ListenerKind,
    announce: Option<&AnnouncePlan>,
    position: &Position,
    problems: &mut Problems<'_>,
) -> RouteTable<PoolId> {
    let table = RouteTable::new(routes, default);
    if kind.protocol == Protocol::Mysql && table.needs_hello() {
        let message = "MySQL servers send first: `sni` and `alpn` cannot be read before that";
        problems.error(position, message, "give each pool a listener of its own");
    }
    match (kind.terminates, announce) {
        (true, _) => table.terminating_by_default(),
        (false, Some(_)) => table.reading_hello(),
        (false, None) => table,
    }
}

/// Warns if the `protocol` of the listener does not fit the checks of its pools.
fn warn_of_wrong_protocol(
    table: &RouteTable<PoolId>,
    kind: ListenerKind,
    pools: &[Arc<PoolPlan>],
    position: &Position,
    problems: &mut Problems<'_>,
) {
    match kind.protocol {
        _ if kind.terminates => {}
        Protocol::Tcp if table.needs_hello() => unused::clients_without_hello(table, pools, position, problems),
        Protocol::Tcp => unused::stray_cancels(table, pools, position, problems),
        Protocol::Postgres { .. } | Protocol::Mysql | Protocol::Redis => {}
    }
}

/// Rejects a listener that is a server of one of its own pools: one client would open sessions until the limit of
/// connections is reached. Routes with `from` are skipped: each further session comes from our own address, which
/// possibly does not match.
fn reject_own_servers(
    bind: &[ListenAddr],
    table: &RouteTable<PoolId>,
    pools: &[Arc<PoolPlan>],
    position: &Position,
    problems: &mut Problems<'_>,
) {
    let is_own = |entry: &ServerEntry| bind.iter().any(|own| own.is_reached_at(&entry.location));
    let mut targets: Vec<PoolId> = table.targets_for_any_source().copied().collect();
    targets.sort_unstable_by_key(|id| id.0);
    targets.dedup();
    for id in targets {
        let pool = &pools[id.0];
        if let Some(entry) = pool.entries.iter().find(|entry| is_own(entry)) {
            let message = format!(
                "`{}`, a server of pool `{}`, is this listener",
                entry.written, pool.name
            );
            let hint = "every session would open another one: write the address of the server";
            problems.error(position, message, hint);
        }
    }
}

/// The permissions of the listener's Unix sockets. `unix_mode` has them as octal digits.
fn unix_mode(section: &Section<'_>, bind: &[ListenAddr], problems: &mut Problems<'_>) -> u32 {
    const DEFAULT: u32 = 0o660;
    let Some((position, node)) = section.entry("unix_mode") else {
        return DEFAULT;
    };
    if !bind.iter().any(|address| address.unix().is_some()) {
        let message = "`unix_mode` has no effect: the listener has no Unix socket";
        problems.warning(
            position,
            message,
            r#"add "unix:/run/NAME.sock" to `bind`, or remove `unix_mode`"#,
        );
    }
    let mode = match &node.value {
        Value::String(digits) => parse_file_mode(digits),
        _ => None,
    };
    mode.unwrap_or_else(|| {
        let message = "the permissions of a file are three or four octal digits, as in chmod(1)";
        problems.error(&node.position, message, r#"write "0660""#);
        DEFAULT
    })
}

/// What the routes and pools of the listener must suit. Reads `protocol`, and the keys that only one protocol has.
fn kind(section: &Section<'_>, problems: &mut Problems<'_>) -> ListenerKind {
    let tls_required = section.boolean("tls_required", problems).unwrap_or(false);
    let unplaced_values = [("drop", UnplacedCancel::Drop), ("fanout", UnplacedCancel::Fanout)];
    let unplaced = section.one_of("cancel_unplaced", &unplaced_values, problems);
    let postgres = Protocol::Postgres {
        tls_required,
        cancel_unplaced: unplaced.unwrap_or_default(),
    };
    let protocols = [
        ("tcp", Protocol::Tcp),
        ("postgres", postgres),
        ("mysql", Protocol::Mysql),
        ("redis", Protocol::Redis),
    ];
    let protocol = section.one_of("protocol", &protocols, problems);
    let may_be_postgres = protocol.map_or(!section.is_missing("protocol"), Protocol::is_postgres);
    for key in ["tls_required", "cancel_unplaced"] {
        if !may_be_postgres && let Some((position, _)) = section.entry(key) {
            let message = format!("`{key}` is for listeners of PostgreSQL");
            problems.error(position, message, r#"add protocol = "postgres""#);
        }
    }
    ListenerKind {
        protocol: protocol.unwrap_or(Protocol::Tcp),
        may_be_postgres,
        terminates: !section.is_missing("tls"),
    }
}

/// The protocol, with `tls_required` if every client needs a certificate: a client without TLS cannot present one.
fn with_tls_required(
    mut protocol: Protocol,
    tls: Option<&ListenerTlsPlan>,
    section: &Section<'_>,
    problems: &mut Problems<'_>,
) -> Protocol {
    let client_auth = tls.and_then(|tls| tls.client_auth.as_ref());
    if let (Protocol::Postgres { tls_required, .. }, Some(ClientAuthPlan { is_required: true, .. })) =
        (&mut protocol, client_auth)
    {
        if let Some((position, node)) = section.entry("tls_required")
            && matches!(node.value, Value::Boolean(false))
        {
            let message = "clients without TLS have no certificate, but `client_auth` requires one";
            let hint = r#"remove `tls_required`, or write mode = "request" in `client_auth`"#;
            problems.error(position, message, hint);
        }
        *tls_required = true;
    }
    protocol
}

/// The routes, each with its position.
fn routes<'a>(
    listener: &str,
    section: &Section<'a>,
    kind: ListenerKind,
    names: &mut Names<'_, '_>,
    problems: &mut Problems<'_>,
) -> (Vec<Route<PoolId>>, Vec<&'a Position>) {
    let items = section
        .get("routes")
        .and_then(|node| value::list(node, &format!("[{}]", keys::ROUTE.example), problems))
        .unwrap_or_default();
    let mut first_positions: HashMap<Arc<str>, &Position> = HashMap::new();
    let mut routes = Vec::with_capacity(items.len());
    let mut positions = Vec::with_capacity(items.len());
    for (index, node) in items.iter().enumerate() {
        let default_name = format!("{listener}#{}", index + 1);
        let Some(route) = route::route(&default_name, node, kind, names, problems) else {
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
    unused::routes_by_encrypted_login(&routes, &positions, kind.protocol, kind.terminates, problems);
    unused::shadowed_routes(&routes, &positions, problems);
    unused::default_pool(&routes, section.get("pool"), problems);
    (routes, positions)
}

/// Reports a listener whose clients cannot go anywhere.
fn report_missing_target(section: &Section<'_>, position: &Position, problems: &mut Problems<'_>) {
    let has_no_routes = match section.get("routes") {
        Some(node) => matches!(&node.value, Value::List(items) if items.is_empty()),
        None => section.is_missing("routes"),
    };
    if has_no_routes
        && ["redirect", "pool", "announce"]
            .iter()
            .all(|key| section.is_missing(key))
    {
        problems.error(
            position,
            "this listener has neither `pool` nor `routes`",
            r#"add pool = "NAME""#,
        );
    }
}
