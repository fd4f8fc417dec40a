//! Addresses as HAProxy writes them (configuration manual, section 11).

use std::net::{IpAddr, Ipv6Addr};

use super::super::number::source_address;
use crate::addr::{NetworkError, parse_network};
use crate::config::address;

/// The addresses of `bind`; in the text, commas separate them. `None` for each that cannot be carried over.
pub(super) fn binds(text: &str) -> impl Iterator<Item = Option<String>> {
    text.split(',')
        .map(|text| bind(text).filter(|text| address::listen(text).is_ok()))
}

fn bind(text: &str) -> Option<String> {
    if let Some(address) = unix_address(text) {
        return Some(address);
    }
    let is_ipv6 = text.starts_with("ipv6@") || text.starts_with("tcp6@");
    let (host, port) = without_family(text).rsplit_once(':')?;
    let host = match host.trim_matches(['[', ']']) {
        "" | "*" if is_ipv6 => String::from("[::]"),
        "" | "*" => String::from("0.0.0.0"),
        ip => with_brackets(ip),
    };
    Some(format!("{host}:{port}"))
}

/// The address of a server, which needs a port unless it is a Unix socket. `None`: it cannot be carried over.
pub(super) fn server(text: &str) -> Option<String> {
    let address = match unix_address(text) {
        Some(address) => address,
        None => {
            let (host, port) = without_family(text).rsplit_once(':')?;
            format!("{}:{port}", with_brackets(host.trim_matches(['[', ']'])))
        }
    };
    address::server(&address).is_ok().then_some(address)
}

/// Whether the address of a server has no host: `0.0.0.0:443`, `*:443` or `:443`.
pub(super) fn is_unspecified(text: &str) -> bool {
    let text = without_family(text);
    let host = text
        .rsplit_once(':')
        .map_or(text, |(host, _)| host)
        .trim_matches(['[', ']']);
    matches!(host, "" | "*") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// A network or an address; bits after the prefix are dropped, as HAProxy does. `None`: the text is neither.
pub(super) fn network(text: &str) -> Option<String> {
    match parse_network(text) {
        Ok(_) => Some(text.to_owned()),
        Err(NetworkError::HostBits(_, masked)) => network(&masked.to_string()),
        Err(NetworkError::Mapped(_, network)) => Some(network.to_string()),
        Err(NetworkError::Malformed(_)) => None,
    }
}

/// The address of a Unix socket, as `unix:/PATH`; `None`: the text is no such address.
fn unix_address(text: &str) -> Option<String> {
    let path = text.strip_prefix("unix@").unwrap_or(text);
    path.starts_with('/').then(|| format!("unix:{path}"))
}

/// The IP address that connections to servers come from, without the port that the text may have. `None`: the text is
/// not such an address.
pub(super) fn source(text: &str) -> Option<String> {
    let text = without_family(text);
    let host = text.trim_matches(['[', ']']);
    source_address(host).or_else(|| source_address(text.rsplit_once(':')?.0.trim_matches(['[', ']'])))
}

/// The text without a prefix such as `ipv4@`.
fn without_family(text: &str) -> &str {
    let prefixes = ["ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@"];
    let rest = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
    rest.unwrap_or(text)
}

fn with_brackets(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_form_that_acequia_accepts() {
        for (text, expected) in [
            (":443", &["0.0.0.0:443"][..]),
            ("*:80,[::]:80", &["0.0.0.0:80", "[::]:80"]),
            (":::443", &["[::]:443"]),
            ("/run/a.sock,unix@/run/b", &["unix:/run/a.sock", "unix:/run/b"]),
            ("ipv6@:1", &["[::]:1"]),
            ("ipv4@10.0.0.1:1", &["10.0.0.1:1"]),
        ] {
            let found: Vec<String> = binds(text).flatten().collect();
            assert_eq!(found, expected, "{text}");
        }
        for text in ["", "unix@a", "abns@a", ":80-90", "host:80", "fd@${FD}", ":$PORT"] {
            assert_eq!(binds(text).flatten().count(), 0, "{text}");
        }
        assert_eq!(server("2001:db8::1:443").unwrap(), "[2001:db8::1]:443");
        assert_eq!(server("[::1]:443").unwrap(), "[::1]:443");
        assert_eq!(server("db.internal:1").unwrap(), "db.internal:1");
        assert_eq!(server("unix@/run/db.sock").unwrap(), "unix:/run/db.sock");
        for text in ["10.0.0.1", "10.0.0.1:0", "abns@a", "0.0.0.0:1", ":80", "a b:1"] {
            assert_eq!(server(text), None, "{text}");
        }
        assert!(
            ["0.0.0.0:1", ":80", "*:80", ":::80", "ipv6@[::]:80"]
                .into_iter()
                .all(is_unspecified)
        );
        assert!(!["a:80", "10.0.0.1", "abns@a"].into_iter().any(is_unspecified));
        for (text, address) in [
            ("10.0.0.5", "10.0.0.5"),
            ("10.0.0.5:0", "10.0.0.5"),
            ("::1", "::1"),
            ("[::1]:0", "::1"),
        ] {
            assert_eq!(source(text).unwrap(), address, "{text}");
        }
        for text in ["0.0.0.0", "*", "a", ""] {
            assert_eq!(source(text), None, "{text}");
        }
        assert_eq!(network("10.1.2.3/8").unwrap(), "10.0.0.0/8");
        assert_eq!(network("all"), None);
    }
}
