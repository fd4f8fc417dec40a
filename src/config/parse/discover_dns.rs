//! `dns_srv`, `dns` and `resolver` of `discover`.

use std::net::SocketAddr;

use hickory_resolver::proto::rr::Name;

use super::address::{self, InvalidValue};
use super::{Problems, Section, value};
use crate::addr::{IpFamily, ServerLocation, is_of_one_host};
use crate::plan::{DiscoverSource, DnsQuery, DnsSourcePlan};

/// The source of a section with `dns_srv` or `dns`; `None`: it is not valid.
pub(super) fn dns(section: &Section<'_>, family: IpFamily, problems: &mut Problems<'_>) -> Option<DiscoverSource> {
    let query = match section.get("dns_srv") {
        Some(node) => value::parsed(node, srv_name, problems).map(DnsQuery::Srv),
        None => section.parsed("dns", dns_host, problems),
    };
    let resolver = match section.get("resolver") {
        Some(node) => Some(value::parsed(node, name_server, problems)?),
        None => None,
    };
    Some(DiscoverSource::Dns(DnsSourcePlan {
        query: query?,
        resolver,
        family,
    }))
}

/// The name of SRV records. Its labels may have any character except white space and `:`; a `:` would begin a port.
fn srv_name(text: &str) -> Result<Name, InvalidValue> {
    let name = text.parse().ok().filter(|name: &Name| !name.is_root());
    let is_invalid = |c: char| c.is_whitespace() || c == ':';
    let valid = name.filter(|_| !text.is_empty() && !text.contains(is_invalid));
    valid.ok_or_else(|| {
        let hint =
            r#"write "_SERVICE._tcp.NAME"; the port is in its records. For A and AAAA records: dns = "NAME:PORT""#;
        (format!("`{text}` is not the name of SRV records"), hint.to_owned())
    })
}

fn dns_host(text: &str) -> Result<DnsQuery, InvalidValue> {
    match address::server(text)? {
        ServerLocation::Name { host, port } => Ok(DnsQuery::Host { host, port }),
        _ => {
            let hint = format!(r#"write servers = ["{text}"] in the pool, without `discover`"#);
            Err((format!("`{text}` is not a host name and a port"), hint))
        }
    }
}

fn name_server(text: &str) -> Result<SocketAddr, InvalidValue> {
    let address = text.parse().ok();
    let valid = address.filter(|address: &SocketAddr| address.port() != 0 && is_of_one_host(address.ip()));
    valid.ok_or_else(|| {
        let hint = r#"write its IP address and port, as in "10.0.0.2:53" or "[fd00::2]:53""#;
        (format!("`{text}` is not the address of a name server"), hint.to_owned())
    })
}
