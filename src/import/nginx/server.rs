//! `server` (ngx_stream_core_module, ngx_stream_proxy_module and others).

use std::time::Duration;

use super::super::imported::{ImportedListener, ImportedRoute, Remark, quoted};
use super::super::number::{clamped_integer, duration, duration_value, source_address, too_long};
use super::Targets;
use super::access;
use super::access_limits;
use super::block::Directive;
use super::certificates;
use super::proxy_ssl;
use crate::config::address;

/// The defaults of nginx for `proxy_timeout` and `proxy_connect_timeout`.
const PROXY_TIMEOUT: Duration = Duration::from_secs(600);
const PROXY_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a timeout of 0 is left out.
const ZERO_TIMEOUT: &str = "0 expires at once in nginx; a default is used";

/// Directives that a `server` block inherits from `stream`. [`access_limits::KNOWN`] and [`proxy_ssl::KNOWN`]
/// have more.
const INHERITED: [&str; 19] = [
    "allow",
    "deny",
    "preread_timeout",
    "proxy_bind",
    "proxy_connect_timeout",
    "proxy_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_protocol",
    "proxy_protocol_timeout",
    "proxy_timeout",
    "resolver",
    "set_real_ip_from",
    "ssl_alpn",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_handshake_timeout",
    "ssl_preread",
    "ssl_protocols",
    "tcp_nodelay",
];

/// The most `retries` that acequia accepts.
const RETRIES_MAX: u32 = 100;

const NO_UDP: &str = "UDP is not supported";

/// Whether a `server` block inherits this directive from `stream`.
pub(super) fn is_inherited(directive: &Directive) -> bool {
    let name = &directive.name();
    INHERITED.contains(name) || access_limits::KNOWN.contains(name) || proxy_ssl::KNOWN.contains(name)
}

/// Reads a `server` block. Its directives replace inherited ones of the same name. `allow` and `deny` count as
/// one name.
///
/// # Errors
/// Why it cannot be carried over.
pub(super) fn read(
    inherited: &[&Directive],
    block: &[Directive],
    targets: &mut Targets,
) -> Result<ImportedListener, &'static str> {
    let mut listener = ImportedListener::default();
    let is_replaced = |own: &Directive, inherited: &Directive| {
        own.name() == inherited.name() || (access::is_rule(own) && access::is_rule(inherited))
    };
    let is_not_replaced = |inherited: &&&Directive| !block.iter().any(|own| is_replaced(own, inherited));
    let all: Vec<&Directive> = inherited.iter().filter(is_not_replaced).copied().chain(block).collect();
    let listens = block.iter().filter(|directive| directive.name() == "listen");
    let (udp, tcp): (Vec<_>, Vec<_>) = listens.partition(|directive| directive.words.iter().any(|word| word == "udp"));
    if tcp.is_empty() && !udp.is_empty() {
        return Err(NO_UDP);
    }
    tcp.iter().for_each(|directive| listen(directive, &mut listener));
    let remarks = udp.iter().map(|directive| directive.left_out(NO_UDP));
    listener.section.remarks.extend(remarks);
    let rules: Vec<&Directive> = all
        .iter()
        .copied()
        .filter(|directive| access::is_rule(directive))
        .collect();
    access::read(&rules, &mut listener)?;
    access_limits::client_auth(&all, &mut listener)?;
    let target = block.iter().find(|directive| directive.name() == "proxy_pass");
    let target = target.ok_or("it has no proxy_pass")?;
    set_target(target, &connect_settings(&all), targets, &mut listener)?;
    listener.name = name(&listener);
    certificates::read(&all, &mut listener);
    set_proxy_peers(&all, &mut listener);
    access_limits::read(&all, targets, &mut listener);
    set_settings(&all, targets, &mut listener);
    proxy_ssl::read(&all, targets, &mut listener);
    Ok(listener)
}

/// The settings with which a `server` block connects to the servers of its pool, except `proxy_connect_timeout`, as a
/// text that can be compared.
fn connect_settings(all: &[&Directive]) -> String {
    // The default value of a directive that is compared. `None`: the directive is not compared, or is in `proxy_ssl`.
    let default_of = |name: &str| match name {
        "proxy_next_upstream" => Some("on"),
        "proxy_next_upstream_tries" => Some("0"),
        "proxy_protocol" | "proxy_bind" => Some("off"),
        _ => None,
    };
    let not_default = all.iter().filter(|directive| {
        let default = default_of(directive.name());
        default.is_some() && directive.word(1) != default
    });
    let mut words: Vec<String> = not_default.map(|directive| directive.words.join(" ")).collect();
    words.extend(proxy_ssl::settings(all));
    words.sort_unstable();
    words.join(";")
}

fn listen(directive: &Directive, listener: &mut ImportedListener) {
    let options = directive.words.get(2..).unwrap_or_default();
    let text = directive.word(1).unwrap_or_default();
    let text = match text.strip_prefix("*:") {
        Some(port) => format!("0.0.0.0:{port}"),
        None if text.parse::<u16>().is_ok() => format!("0.0.0.0:{text}"),
        None => text.replacen("localhost:", "127.0.0.1:", 1),
    };
    if address::listen(&text).is_err() {
        let remark = directive.left_out("write an IP address and one port");
        listener.section.remarks.push(remark);
        return;
    }
    if options.iter().any(|option| option == "ipv6only=off") && text.starts_with("[::]:") {
        listener.dual_stack.push(text.clone());
    }
    if !options.iter().any(|option| option == "ssl") {
        listener.plain_addresses.push(text.clone());
    }
    listener.bind.push(text.clone());
    for option in options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match (key, clamped_integer(value, 1, i32::MAX as u32)) {
            ("ssl" | "reuseport" | "ipv6only" | "so_keepalive" | "default_server" | "bind", _) => {}
            ("proxy_protocol", _) => listener.accept_proxy_at(std::slice::from_ref(&text)),
            ("backlog", Some(backlog)) => listener.section.set("backlog", backlog.to_string()),
            _ => {
                let remark = Remark::left_out(directive.line, &format!("of listen: {option}"), "");
                listener.section.remarks.push(remark);
            }
        }
    }
}

/// Sets the pool of a listener. If the target depends on a `map`, also adds its routes.
fn set_target(
    directive: &Directive,
    connect_settings: &str,
    targets: &mut Targets,
    listener: &mut ImportedListener,
) -> Result<(), &'static str> {
    let target = directive.word(1).unwrap_or_default();
    if !target.contains('$') {
        listener.pool = Some(
            targets
                .pool(target, connect_settings)
                .ok_or("proxy_pass is not an address with a port")?,
        );
        return Ok(());
    }
    let (variable, suffix) = match target.split_once(':') {
        Some((variable, port)) => (variable, format!(":{port}")),
        None => (target, String::new()),
    };
    let variable = variable.replace(['{', '}'], "");
    let map = targets
        .maps
        .remove(&variable)
        .ok_or("no map that is carried over sets the variable of proxy_pass")?;
    for (line, patterns, entry_target) in &map.entries {
        match targets.pool(&format!("{entry_target}{suffix}"), connect_settings) {
            Some(pool) => {
                let mut route = ImportedRoute {
                    pool: Some(pool),
                    line: *line,
                    ..ImportedRoute::default()
                };
                if map.is_of_protocols {
                    route.alpn.clone_from(patterns);
                } else {
                    route.sni.clone_from(patterns);
                }
                listener.routes.push(route);
            }
            None => {
                let what = format!("{} {entry_target}", patterns.join(" "));
                let why = "its target is neither an upstream nor an address with a port";
                listener.section.remarks.push(Remark::left_out(*line, &what, why));
            }
        }
    }
    if let Some(default) = &map.default {
        listener.pool = targets.pool(&format!("{default}{suffix}"), connect_settings);
        if listener.pool.is_none() {
            let what = format!("default {default}");
            listener
                .section
                .remarks
                .push(Remark::left_out(directive.line, &what, ""));
        }
    }
    targets.maps.insert(variable, map); // removed above, since `targets.pool` borrows all of `targets`
    Ok(())
}

/// The name of a listener: that of its pool if all clients go there, otherwise `port-` and its first port, or `server`
/// if it has no address.
fn name(listener: &ImportedListener) -> String {
    match (&listener.pool, listener.bind.first()) {
        (Some(pool), _) if listener.routes.is_empty() => pool.clone(),
        (_, Some(bind)) => format!("port-{}", bind.rsplit(':').next().unwrap_or_default()),
        _ => String::from("server"),
    }
}

/// `set_real_ip_from`: the peers whose PROXY header is believed, if any address accepts one.
fn set_proxy_peers(all: &[&Directive], listener: &mut ImportedListener) {
    if listener.proxy_peers.is_empty() {
        return;
    }
    let mut networks = Vec::new();
    for directive in all.iter().filter(|directive| directive.name() == "set_real_ip_from") {
        match directive.word(1).and_then(access::network) {
            Some(network) => networks.push(network),
            None => listener
                .section
                .remarks
                .push(directive.left_out("not a network that can hold a peer")),
        }
    }
    if networks.is_empty() {
        let note = "proxy_protocol trusts every peer: list the balancers in front in `from`";
        listener.section.remarks.push(Remark::note(0, note));
    } else {
        listener.proxy_peers = networks;
    }
}

/// Sets timeouts, and the settings of the pools of the listener.
fn set_settings(all: &[&Directive], targets: &mut Targets, listener: &mut ImportedListener) {
    let (mut idle_timeout, mut connect_timeout, mut hello_timeout) = (PROXY_TIMEOUT, PROXY_CONNECT_TIMEOUT, None);
    let mut sends_header = false;
    let (mut retries, mut tries_next_server) = (None, true);
    for directive in all {
        match directive.name() {
            "proxy_timeout" => idle_timeout = timeout(directive, listener).unwrap_or(idle_timeout),
            "proxy_connect_timeout" => connect_timeout = timeout(directive, listener).unwrap_or(connect_timeout),
            // Where TLS is terminated, `hello_timeout` is for the whole handshake.
            "preread_timeout" | "ssl_handshake_timeout" => {
                hello_timeout = hello_timeout.max(timeout(directive, listener));
            }
            "proxy_protocol" => sends_header = directive.word(1) == Some("on"),
            "listen" | "proxy_pass" | "ssl_preread" | "resolver" | "set_real_ip_from" | "allow" | "deny" => {}
            "ssl_certificate" | "ssl_certificate_key" | "ssl_alpn" | "ssl_protocols" => {}
            "access_log" | "error_log" => {}
            "tcp_nodelay" if directive.word(1) == Some("off") => {
                listener.section.remarks.push(directive.left_out("it is always on"));
            }
            "tcp_nodelay" => {}
            "proxy_next_upstream" => tries_next_server = directive.word(1) != Some("off"),
            "proxy_bind" => set_source(directive, targets, listener),
            name if access_limits::KNOWN.contains(&name) || proxy_ssl::KNOWN.contains(&name) => {}
            "proxy_protocol_timeout" => {} // `hello_timeout` also limits the PROXY header
            "proxy_next_upstream_tries" => {
                let tries = directive.word(1);
                retries = match tries.and_then(|text| clamped_integer(text, 0, RETRIES_MAX + 1)) {
                    None | Some(0) => Some(RETRIES_MAX), // 0 is no limit in nginx
                    Some(tries) => Some(tries - 1),
                };
            }
            _ => listener.section.remarks.push(directive.left_out("")),
        }
    }
    if let Some(time) = hello_timeout {
        listener.section.set("hello_timeout", duration_value(time));
    }
    listener.section.set("idle_timeout", duration_value(idle_timeout));
    set_in_pools(targets, listener, "connect_timeout", &duration_value(connect_timeout));
    if !tries_next_server {
        retries = Some(0);
    }
    if let Some(retries) = retries {
        set_in_pools(targets, listener, "retries", &retries.to_string());
    }
    if sends_header {
        set_in_pools(targets, listener, "proxy_protocol", &quoted("v1"));
    }
}

/// The time of a timeout. Adds a note if it is longer than is possible here. `None`: it is left out, with a remark.
fn timeout(directive: &Directive, listener: &mut ImportedListener) -> Option<Duration> {
    let text = directive.word(1).unwrap_or_default();
    let time = duration(text, 1_000);
    let remark = match time {
        None => Some(directive.left_out("")),
        Some(Duration::ZERO) => Some(directive.left_out(ZERO_TIMEOUT)),
        Some(_) => too_long(text, 1_000).map(|note| Remark::note(directive.line, note)),
    };
    listener.section.remarks.extend(remark);
    time.filter(|time| !time.is_zero())
}

/// `proxy_bind`: the address that connections to servers come from.
fn set_source(directive: &Directive, targets: &mut Targets, listener: &mut ImportedListener) {
    let source = match (directive.word(1).unwrap_or_default(), directive.word(2)) {
        ("off", None) => return,
        ("$remote_addr" | "$remote_addr:$remote_port" | "$remote_addr:0", Some("transparent")) => {
            Some(String::from("client"))
        }
        (address, None) => source_address(address),
        _ => None,
    };
    match source {
        Some(source) => {
            for pool in targets.used_by(listener) {
                pool.source = Some(source.clone());
            }
        }
        None => listener
            .section
            .remarks
            .push(directive.left_out("write an address of this machine")),
    }
}

/// Sets a key of each pool of a listener. The first `server` block that sets it decides for all.
fn set_in_pools(targets: &mut Targets, listener: &mut ImportedListener, key: &'static str, value: &str) {
    let mut remarks = Vec::new();
    for pool in targets.used_by(listener) {
        match pool.section.get(key) {
            None => pool.section.set(key, value),
            Some(other) if other != value => {
                let text = format!(
                    "pool {} has {key} = {other}, from another server block, and not {value}",
                    pool.name
                );
                remarks.push(Remark::note(0, text));
            }
            Some(_) => {}
        }
    }
    listener.section.remarks.append(&mut remarks);
}
