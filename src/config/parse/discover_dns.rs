//! `dns_srv`, `dns` and `resolver` of `discover`.

use std::net::SocketAddr;

use hickory_resolver::proto::rr::Name;

use super::{Problems, Section, address, value};
use crate::addr::{IpFamily, ServerLocation, is_of_one_host};
use crate::config::file::Node;
use crate::plan::{DiscoverSource, DnsQuery, DnsSourcePlan};

/// The source of a section with `dns_srv` or `dns`; `None`: it is not valid.
pub(super) fn dns(section: &Section<'_>, family: IpFamily, problems: &mut Problems<'_>) -> Option<DiscoverSource> {
    let query = match section.get("dns_srv") {
        Some(node) => srv_name(node, problems).map(DnsQuery::Srv),
        None => dns_host(section.get("dns")?, problems),
    };
    let resolver = match section.get("resolver") {
        Some(node) => Some(name_server(node, problems)?),
        None => None,
    };
    Some(DiscoverSource::Dns(DnsSourcePlan {
        query: query?,
        resolver,
        family,
    }))
}

/// The name of SRV records. Its labels may have any character except white space and `:`; a `:` would begin a port.
fn srv_name(node: &Node, problems: &mut Problems<'_>) -> Option<Name> {
    let text = value::string(node, problems)?;
    let name = text.parse().ok().filter(|name: &Name| !name.is_root());
    let is_invalid = |c: char| c.is_whitespace() || c == ':';
    let valid = name.filter(|_| !text.is_empty() && !text.contains(is_invalid));
    if valid.is_none() {
        let hint =
            r#"write "_SERVICE._tcp.NAME"; the port is in its records. For A and AAAA records: dns = "NAME:PORT""#;
        problems.error(&node.position, format!("`{text}` is not the name of SRV records"), hint);
    }
    valid
}

fn dns_host(node: &Node, problems: &mut Problems<'_>) -> Option<DnsQuery> {
    let text = value::string(node, problems)?;
    match address::server(text) {
        Ok(ServerLocation::Name { host, port }) => return Some(DnsQuery::Host { host, port }),
        Ok(_) => {
            let hint = format!(r#"write servers = ["{text}"] in the pool, without `discover`"#);
            problems.error(&node.position, format!("`{text}` is not a host name and a port"), hint);
        }
        Err((message, hint)) => problems.error(&node.position, message, hint),
    }
    None
}

fn name_server(node: &Node, problems: &mut Problems<'_>) -> Option<SocketAddr> {
    let text = value::string(node, problems)?;
    let address = text.parse().ok();
    let valid = address.filter(|address: &SocketAddr| address.port() != 0 && is_of_one_host(address.ip()));
    if valid.is_none() {
        let hint = r#"write its IP address and port, as in "10.0.0.2:53" or "[fd00::2]:53""#;
        problems.error(
            &node.position,
            format!("`{text}` is not the address of a name server"),
            hint,
        );
    }
    valid
}
