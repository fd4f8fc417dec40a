//! `bind_source` of a pool.

use std::net::IpAddr;

use super::list::entries;
use super::{Problems, Section, address};
use crate::addr::ServerLocation;
use crate::config::file::Value;
use crate::dial::{BindAddresses, BindSource};
use crate::plan::ServerEntry;

/// Converts `bind_source`; `None`: the system chooses where connections come from.
pub(super) fn bind_source(
    pool: &Section<'_>,
    servers: &[ServerEntry],
    problems: &mut Problems<'_>,
) -> Option<BindSource> {
    let (position, node) = pool.entry("bind_source")?;
    let servers: Vec<_> = servers.iter().filter(|server| !server.location.is_unix()).collect();
    if servers.is_empty() {
        let message = "`bind_source` has no effect: all servers are on Unix sockets";
        problems.warning(position, message, "remove it");
    }
    if matches!(&node.value, Value::String(text) if text == "client") {
        return Some(BindSource::new(BindAddresses::Client));
    }
    let addresses = entries(pool, "bind_source", problems, source_address);
    let is_reachable = |server: &&&ServerEntry| match &server.location {
        ServerLocation::Address(server) | ServerLocation::Resolved { address: server, .. } => addresses
            .iter()
            .any(|address| server.ip().is_some_and(|ip| ip.is_ipv4() == address.is_ipv4())),
        ServerLocation::Name { .. } => true, // each address of it is judged when it is connected to
    };
    if let Some(server) = servers
        .iter()
        .find(|server| !is_reachable(server))
        .filter(|_| !addresses.is_empty())
    {
        let message = format!(
            "no address of `bind_source` has the address family of `{}`",
            server.written
        );
        problems.error(position, message, "add one that has");
    }
    (!addresses.is_empty()).then(|| BindSource::new(BindAddresses::Addresses(addresses)))
}

/// An address of this machine.
fn source_address(text: &str) -> Result<IpAddr, address::InvalidValue> {
    let host = address::ip(text).map_err(|(message, _)| {
        let hint = r#"write addresses of this machine such as "10.0.0.5", or "client" for the address of the client"#;
        (message, String::from(hint))
    })?;
    match host.ip() {
        Some(ip) if ip == ip.to_canonical() => Ok(ip),
        _ => {
            let message = format!("`{text}` is an IPv4-mapped IPv6 address");
            Err((message, String::from("write the IPv4 address")))
        }
    }
}
