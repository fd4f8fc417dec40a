//! Makes the imported configuration consistent: valid names, nothing twice, and no reference to a missing section.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::imported::{
    BOUND_ALREADY, Imported, ImportedListener, ImportedPool, ImportedRoute, ImportedServer, ImportedTls, Remark,
    keep_first,
};
use super::route_order::keep_order;
use super::{Origin, addresses};
use crate::addr::{ListenAddr, ServerAddr, ServerLocation};
use crate::config;
use crate::config::address;
use crate::name::NamePattern;
use crate::text::{NAME_BYTES_MAX, is_name, is_unsafe, truncated};

pub(super) fn complete(imported: &mut Imported, origin: Origin) {
    remove_double_binds(imported);
    addresses::add_addresses_of_ipv4(imported);
    imported.listeners.iter_mut().for_each(remove_unused_tls);
    addresses::separate_listeners(imported);
    name_sections(imported);
    remove_own_servers(imported);
    for pool in &mut imported.pools {
        tidy_servers(pool);
    }
    remove_empty_pools(imported);
    remove_double_tls(imported);
    for pool in &mut imported.pools {
        remove_unfit_source(pool);
        remove_invalid_check(pool);
    }
    let names: HashSet<&str> = imported.pools.iter().map(|pool| pool.name.as_str()).collect();
    for listener in &mut imported.listeners {
        remove_missing_pools(listener, &names);
        remove_duplicates(listener);
        // acequia prefers the most exact name, as maps of nginx do. HAProxy takes the first rule that matches.
        if origin == Origin::Haproxy {
            keep_order(listener);
        }
    }
    let (kept, unusable) = std::mem::take(&mut imported.listeners)
        .into_iter()
        .partition(|listener| !listener.bind.is_empty() && (listener.pool.is_some() || !listener.routes.is_empty()));
    imported.listeners = kept;
    for listener in unusable {
        let why = if listener.bind.is_empty() {
            "no address is left"
        } else {
            "no pool is left"
        };
        let what = format!("listener {}", listener.name);
        imported.remarks.push(Remark::left_out(0, &what, why));
        imported.remarks.extend(listener.section.remarks);
    }
}

/// Gives listeners and pools valid and unique names.
fn name_sections(imported: &mut Imported) {
    let mut seen = HashMap::new();
    for listener in &mut imported.listeners {
        listener.name = unique(&valid_name(&listener.name), &mut seen);
    }
    seen.clear();
    let mut pool_names = HashMap::new();
    for pool in &mut imported.pools {
        let name = unique(&valid_name(&pool.name), &mut seen);
        let before = std::mem::replace(&mut pool.name, name.clone());
        pool_names.entry(before).or_insert(name);
    }
    for listener in &mut imported.listeners {
        let routes = listener.routes.iter_mut().filter_map(|route| route.pool.as_mut());
        for pool in routes.chain(listener.pool.as_mut()) {
            *pool = pool_names.get(pool).cloned().unwrap_or_else(|| valid_name(pool));
        }
    }
}

/// The name with `-` for each character that the name of a server cannot have. Other names could have `/` and `@`.
pub(super) fn valid_name(name: &str) -> String {
    let valid = |c: char| !(c.is_whitespace() || is_unsafe(c) || matches!(c, '"' | '\\' | '/' | '@'));
    let text: String = name.chars().map(|c| if valid(c) { c } else { '-' }).collect();
    let text = truncated(&text, NAME_BYTES_MAX);
    if is_name(text) {
        text.to_owned()
    } else {
        String::from("unnamed")
    }
}

/// The name, with a number appended if the name is taken. `seen` has the names that are taken, each with the last
/// number that was appended to it, so that each number is tried once, however often a name occurs.
pub(super) fn unique(name: &str, seen: &mut HashMap<String, usize>) -> String {
    let mut number = seen.get(name).copied().unwrap_or(0);
    let mut free = name.to_owned();
    while seen.contains_key(&free) {
        number = number.max(1) + 1;
        let suffix = format!("-{number}");
        free = format!("{}{suffix}", truncated(name, NAME_BYTES_MAX - suffix.len()));
    }
    seen.insert(name.to_owned(), number);
    seen.entry(free.clone()).or_default();
    free
}

/// Removes addresses that were seen before, in this listener or an earlier one. Addresses that only overlap stay:
/// acequia accepts them.
fn remove_double_binds(imported: &mut Imported) {
    let mut seen = HashSet::new();
    for listener in &mut imported.listeners {
        let double: Vec<String> = listener
            .bind
            .extract_if(.., |bind| match address::listen(bind) {
                Ok(address) => address.port() != Some(0) && !seen.insert(address),
                Err(_) => true, // never: the importers add only valid addresses
            })
            .collect();
        for bind in double {
            let remark = Remark::left_out(0, &format!("address {bind}"), BOUND_ALREADY);
            listener.section.remarks.push(remark);
        }
    }
}

/// Removes servers whose address is that of a listener which uses their pool: each session would open another session.
fn remove_own_servers(imported: &mut Imported) {
    let mut binds_of: HashMap<&str, HashSet<ListenAddr>> = HashMap::new();
    for listener in &imported.listeners {
        let binds = listener.bind.iter().filter_map(|bind| address::listen(bind).ok());
        let binds: Vec<ListenAddr> = binds.collect();
        let routed = listener.routes.iter().filter_map(|route| route.pool.as_deref());
        for pool in routed.chain(listener.pool.as_deref()) {
            binds_of.entry(pool).or_default().extend(&binds);
        }
    }
    for pool in &mut imported.pools {
        let Some(binds) = binds_of.get(pool.name.as_str()) else {
            continue;
        };
        let is_own = |server: &mut ImportedServer| match address::server(&server.address) {
            Ok(location) => binds.iter().any(|bind| bind.is_reached_at(&location)),
            Err(_) => true, // never: the importers add only valid addresses
        };
        let own = pool.servers.extract_if(.., is_own);
        for server in own {
            let what = format!("server {}", server.address);
            pool.section
                .remarks
                .push(Remark::left_out(0, &what, "it is the listener itself"));
        }
    }
}

/// Gives servers valid names, and removes those that are in the pool already.
fn tidy_servers(pool: &mut ImportedPool) {
    let mut locations = HashSet::new();
    let mut names = HashMap::new();
    let mut kept: Vec<ImportedServer> = Vec::with_capacity(pool.servers.len());
    for mut server in std::mem::take(&mut pool.servers) {
        if !locations.insert(server.address.to_ascii_lowercase()) {
            let what = format!("server {}", server.address);
            pool.section
                .remarks
                .push(Remark::left_out(0, &what, "it is in this pool already"));
            continue;
        }
        server.name = server.name.map(|name| unique(&valid_name(&name), &mut names));
        kept.push(server);
    }
    pool.servers = kept;
}

/// Removes pools of which no server is to get a session.
fn remove_empty_pools(imported: &mut Imported) {
    let is_unused = |server: &ImportedServer| server.weight == Some(0);
    let empty = imported.pools.extract_if(.., |pool| pool.servers.iter().all(is_unused));
    for pool in empty {
        let what = format!("pool {}", pool.name);
        let why = match pool.servers.is_empty() {
            true => "no server is left",
            false => "all of its servers are disabled, or have weight 0",
        };
        imported.remarks.push(Remark::left_out(0, &what, why));
        imported.remarks.extend(pool.section.remarks);
        imported.remarks.extend(pool.health.remarks);
    }
}

/// Removes TLS with the servers from pools that already get the TLS of clients, because a listener routes to them by
/// the ClientHello and does not terminate TLS.
fn remove_double_tls(imported: &mut Imported) {
    let passing = imported
        .listeners
        .iter()
        .filter(|listener| listener.tls.certificates.is_empty());
    let by_hello = passing
        .flat_map(|listener| &listener.routes)
        .filter(|route| !route.sni.is_empty() || !route.alpn.is_empty());
    let pools: HashSet<&String> = by_hello.filter_map(|route| route.pool.as_ref()).collect();
    for pool in imported.pools.iter_mut().filter(|pool| pools.contains(&pool.name)) {
        if let Some(tls) = pool.tls.take() {
            let why = "routes by server name or protocol pass the TLS of clients on to this pool";
            pool.section
                .remarks
                .push(Remark::left_out(0, "TLS with the servers", why));
            pool.section.remarks.extend(tls.remarks);
        }
    }
}

/// Removes the source address of connections if a server has an address of the other family, or if all servers are on
/// Unix sockets.
fn remove_unfit_source(pool: &mut ImportedPool) {
    let Some(source) = &pool.source else { return };
    let source_ip = address::ip(source).ok().and_then(ServerAddr::ip); // the source `client` has no IP
    let is_reachable = |server: &ImportedServer| match (source_ip, address::server(&server.address)) {
        (Some(source), Ok(ServerLocation::Address(server))) => {
            server.ip().is_none_or(|ip| source.is_ipv4() == ip.is_ipv4())
        }
        _ => true, // no family is known
    };
    let is_fit = pool.servers.iter().all(is_reachable);
    let has_effect = pool.servers.iter().any(|server| !server.address.starts_with("unix:"));
    if !(is_fit && has_effect) {
        let what = format!("bind_source {source}");
        let why = "servers cannot be reached from there";
        pool.section.remarks.push(Remark::left_out(0, &what, why));
        pool.source = None;
    }
}

/// Removes the kind of check of a pool if the configuration would not accept it, so that servers are checked by a
/// connect. Also removes `role`: a connect does not find the role of a server.
fn remove_invalid_check(pool: &mut ImportedPool) {
    // A configuration with this pool alone shows whether its check is accepted.
    let alone = Imported {
        listeners: vec![ImportedListener {
            name: String::from("l"),
            bind: vec![String::from("0.0.0.0:0")],
            pool: Some(pool.name.clone()),
            ..ImportedListener::default()
        }],
        pools: vec![std::mem::take(pool)],
        ..Imported::default()
    };
    let is_valid = config::read("", &super::toml::write(&alone).text).is_ok();
    *pool = alone.pools.into_iter().next().expect("it has one");
    if is_valid {
        return;
    }
    let common = ["interval", "interval_down", "timeout", "rise", "fall"];
    let special = pool.health.keys.extract_if(.., |(key, _)| !common.contains(key));
    let what: Vec<String> = special.map(|(key, value)| format!("{key} = {value}")).collect();
    pool.section.remove("role");
    let why = "not a valid check; servers are checked by a connect";
    pool.health.remarks.push(Remark::left_out(0, &what.join(", "), why));
}

fn remove_missing_pools(listener: &mut ImportedListener, names: &HashSet<&str>) {
    if let Some(pool) = listener.pool.take_if(|pool| !names.contains(pool.as_str())) {
        let what = format!("pool {pool}");
        listener
            .section
            .remarks
            .push(Remark::left_out(0, &what, "there is no such pool"));
    }
    let is_missing = |route: &mut ImportedRoute| route.pool.as_ref().is_some_and(|pool| !names.contains(pool.as_str()));
    for route in listener.routes.extract_if(.., is_missing) {
        let what = format!("route to pool {}", route.pool.unwrap_or_default());
        let remark = Remark::left_out(route.line, &what, "there is no such pool");
        listener.section.remarks.push(remark);
    }
}

/// Removes TLS from those addresses of a listener for which no certificate was carried over. A remark names these
/// addresses.
fn remove_unused_tls(listener: &mut ImportedListener) {
    let tls_at = |address: &String| Some((address.clone(), listener.tls_at(address)?));
    let with_tls = listener.bind.iter().filter_map(tls_at);
    let (addresses, unused): (Vec<String>, Vec<&ImportedTls>) =
        with_tls.filter(|(_, tls)| tls.certificates.is_empty()).unzip();
    if addresses.is_empty() {
        return;
    }
    let keys = unused.into_iter().flat_map(|tls| &tls.keys);
    let keys: BTreeSet<String> = keys.map(|(key, value)| format!("{key} = {value}")).collect();
    let what = match keys.is_empty() {
        true => String::from("TLS"),
        false => format!("TLS with {}", Vec::from_iter(keys).join(", ")),
    };
    let why = format!(
        "no certificate was carried over; TLS is passed on at {}",
        addresses.join(", ")
    );
    listener.section.remarks.push(Remark::left_out(0, &what, &why));
    listener.plain_addresses.extend(addresses);
}

/// Removes duplicates from the lists of a listener and its routes.
fn remove_duplicates(listener: &mut ImportedListener) {
    for networks in [&mut listener.proxy_peers, &mut listener.allow, &mut listener.deny] {
        keep_first(networks, |network| address::network(network).ok());
    }
    for route in &mut listener.routes {
        keep_first(&mut route.sni, |name| NamePattern::from_config(name).ok());
        keep_first(&mut route.alpn, |protocol| Some(protocol.to_owned()));
        keep_first(&mut route.from, |network| address::network(network).ok());
    }
}
