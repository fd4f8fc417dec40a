//! `bind_source` of a pool.

use std::net::IpAddr;

use super::list::entries;
use super::{Problems, Section, address, value};
use crate::addr::ServerLocation;
use crate::dial::{BindAddresses, BindSource};
use crate::plan::ServerEntry;

/// Converts `bind_source`; `None`: the kernel chooses the source address of connections, or an error is reported.
pub(super) fn bind_source(
    pool: &Section<'_>,
    servers: &[ServerEntry],
    problems: &mut Problems<'_>,
) -> Option<BindSource> {
    let (position, node) = pool.entry("bind_source")?;
    let non_unix: Vec<_> = servers.iter().filter(|server| !server.location.is_unix()).collect();
    let has_clones = pool.entry("scale").is_some();
    if non_unix.is_empty() && !servers.is_empty() && !has_clones {
        let message = "`bind_source` has no effect: all servers are on Unix sockets";
        problems.warning(position, message, "remove it");
    }
    if value::is_text(node, "client") {
        return Some(BindSource::new(BindAddresses::Client));
    }
    let addresses = entries(pool, "bind_source", problems, source_address);
    let has_source_of_its_family = |server: &ServerEntry| match &server.location {
        ServerLocation::Address(address) | ServerLocation::Resolved { address, .. } => addresses
            .iter()
            .any(|source| address.ip().is_some_and(|ip| ip.is_ipv4() == source.is_ipv4())),
        ServerLocation::Name { .. } => true, // its family is known only when it is resolved
    };
    if !addresses.is_empty()
        && let Some(server) = non_unix.iter().find(|server| !has_source_of_its_family(server))
    {
        let message = format!(
            "no address of `bind_source` has the address family of `{}`",
            server.written
        );
        problems.error(position, message, "add one that has");
    }
    (!addresses.is_empty()).then(|| BindSource::new(BindAddresses::Addresses(addresses)))
}

/// Parses one address of `bind_source`.
fn source_address(text: &str) -> Result<IpAddr, address::InvalidValue> {
    let host = address::ip(text).map_err(|(message, _)| {
        let hint = r#"write addresses of this machine such as "10.0.0.5", or "client" for the address of the client"#;
        (message, String::from(hint))
    })?;
    match host.ip() {
        Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
            let message = format!("`{text}` is a link-local address: `bind_source` cannot bind it to an interface");
            Err((message, String::from("write another address of this machine")))
        }
        Some(ip) if ip == ip.to_canonical() => Ok(ip),
        _ => {
            let message = format!("`{text}` is an IPv4-mapped IPv6 address");
            Err((message, String::from("write the IPv4 address")))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::read;

    /// The kernel binds a link-local address only together with an interface, and sources have none.
    #[test]
    fn a_link_local_address_is_no_source() {
        for address in ["fe80::1", "fe80::1%lo"] {
            let text = format!(
                "[listeners.l]\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[pools.p]\nservers = [\"[fe80::2%lo]:1\"]\n\
                 bind_source = \"{address}\"\n"
            );
            let report = read("a.toml", &text).unwrap_err().to_string();
            assert!(report.contains("is a link-local address"), "{report}");
        }
    }

    #[test]
    fn bind_source_has_no_effect_only_if_all_servers_are_unix_sockets() {
        let warnings = |servers: &str| {
            let text = format!(
                "[listeners.l]\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[pools.p]\nbind_source = \"client\"\n{servers}"
            );
            read("a.toml", &text).unwrap().warnings.to_string()
        };
        for servers in [
            "discover = { dns = \"a.test:1\" }",
            "servers = [\"unix:/run/a.sock\", \"10.0.0.1:1\"]",
        ] {
            assert_eq!(warnings(servers), "", "{servers}");
        }
        assert!(warnings("servers = [\"unix:/run/a.sock\"]").contains("`bind_source` has no effect"));
    }
}
