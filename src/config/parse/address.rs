//! Addresses as people write them: `10.0.0.1:80`, `[::1]:80`, `[fe80::1%eth0]:80`, `db.internal:5432`, `10.0.0.0/8`.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ipnet::{IpNet, Ipv4Net};

use crate::addr::{Interface, ListenAddr, ServerAddr, ServerPlace};
use crate::name::ServerName;

/// What is wrong with a text, and what to write instead.
pub(super) type Wrong = (String, String);

/// An address to listen on.
pub(super) fn listen(text: &str) -> Result<ListenAddr, Wrong> {
    if let Some((address, interface)) = on_interface(text) {
        return found(interface, |interface| ListenAddr::on(address, interface));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        needs_no_scope(address)?;
        // `[::]` is IPv6 only here, so the kernel would refuse to bind such an address.
        if let IpAddr::V6(v6) = address.ip()
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let what = format!("`{text}` is an IPv4 address written as IPv6");
            return Err((what, format!("write \"{v4}:{}\"", address.port())));
        }
        return Ok(ListenAddr::new(address));
    }
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:"))
        && port.parse::<u16>().is_ok()
    {
        let label = format!("write [\"0.0.0.0:{port}\", \"[::]:{port}\"]");
        return Err((format!("`{text}` does not say on which address"), label));
    }
    if text.parse::<u16>().is_ok() {
        let label = format!("write [\"0.0.0.0:{text}\", \"[::]:{text}\"]");
        return Err((format!("`{text}` is a port alone"), label));
    }
    let (host, _) = split(text)?;
    let label = String::from(r#"write an IP address and a port, as in "0.0.0.0:443" or "[::]:443""#);
    Err((format!("`{host}` is not an IP address"), label))
}

/// Where a server is.
pub(super) fn server(text: &str) -> Result<ServerPlace, Wrong> {
    if text.starts_with("unix:") || text.starts_with('/') {
        let what = String::from("servers on Unix sockets do not work yet");
        return Err((what, String::from("write \"host:port\"")));
    }
    if let Some((address, interface)) = on_interface(text).filter(|(address, _)| address.port() != 0) {
        return found(interface, |interface| ServerAddr::on(address, interface)).map(ServerPlace::Address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        needs_no_scope(address)?;
        return match address.port() {
            0 => Err(port_zero(text)),
            _ => Ok(ServerPlace::Address(ServerAddr::new(address))),
        };
    }
    let (host, port) = split(text)?;
    if port == 0 {
        return Err(port_zero(text));
    }
    let name = ServerName::from_config(host).map_err(|error| {
        let label = String::from(r#"write "name:port", "10.0.0.1:port" or "[::1]:port""#);
        (format!("`{host}` is neither a name nor an IP address: {error}"), label)
    })?;
    // The resolver would take such a name for an old spelling of an IPv4 address.
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next();
    if last.is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit())) {
        return Err((
            format!("`{host}` is not an IP address"),
            String::from("it has four numbers, 0 to 255"),
        ));
    }
    // As written, for a trailing dot means something to the resolver; only what is not ASCII it could not look up.
    let host = if host.is_ascii() { host } else { name.as_str() };
    Ok(ServerPlace::Name {
        host: host.into(),
        port,
    })
}

/// An IP address alone. The port of the answer is 0.
pub(super) fn host(text: &str) -> Result<ServerAddr, Wrong> {
    let not_one = || {
        let label = "write one, as in \"10.0.0.11\"; a port goes into `port`";
        (format!("`{text}` is not an IP address"), String::from(label))
    };
    let bracketed = if text.contains('.') && !text.contains(':') {
        format!("{text}:0")
    } else {
        format!("[{text}]:0")
    };
    if let Some((address, interface)) = on_interface(&bracketed) {
        return found(interface, |interface| ServerAddr::on(address, interface));
    }
    let address: SocketAddr = bracketed.parse().map_err(|_| not_one())?;
    needs_no_scope(address)?;
    Ok(ServerAddr::new(address))
}

/// What `[fe80::1%eth0]:443` consists of; `None`: it is not written like that, or the scope is a number.
fn on_interface(text: &str) -> Option<(SocketAddrV6, &str)> {
    let (host, port) = text.strip_prefix('[')?.rsplit_once("]:")?;
    let (ip, interface) = host.split_once('%')?;
    if text.parse::<SocketAddr>().is_ok() {
        return None;
    }
    Some((SocketAddrV6::new(ip.parse().ok()?, port.parse().ok()?, 0, 0), interface))
}

/// The address on the interface of this name, or what is wrong with that name.
fn found<T>(name: &str, on: impl FnOnce(Interface) -> io::Result<T>) -> Result<T, Wrong> {
    let absent = || {
        let label = "write the name of one that `ip link` shows, or its number";
        (format!("there is no interface `{name}` here"), String::from(label))
    };
    let interface = Interface::new(name).ok_or_else(absent)?;
    on(interface).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => absent(),
        _ => (format!("cannot look up the interface `{name}`: {error}"), String::new()),
    })
}

/// A link-local address means something on one link only (RFC 4007, section 6), and the kernel takes none without.
fn needs_no_scope(address: SocketAddr) -> Result<(), Wrong> {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            let what = format!("`{}` is a link-local address, and its interface is not said", v6.ip());
            Err((
                what,
                format!("write `{}%` and the interface, as in \"[{}%eth0]\"", v6.ip(), v6.ip()),
            ))
        }
        _ => Ok(()),
    }
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let example = || String::from(r#"write "10.0.0.0/8", "2001:db8::/32" or a plain address"#);
    let network = if let Ok(address) = text.parse::<IpAddr>() {
        IpNet::from(address)
    } else {
        let network: IpNet = text
            .parse()
            .map_err(|_| (format!("`{text}` is not a network"), example()))?;
        if network.trunc() != network {
            let what = format!("`{text}` has bits behind its prefix");
            return Err((what, format!("write \"{}\"", network.trunc())));
        }
        network
    };
    match mapped(network) {
        Some(v4) => {
            let what = format!("`{text}` is IPv4 written as IPv6, and matches no client");
            Err((what, format!("write \"{v4}\"")))
        }
        None => Ok(network),
    }
}

/// The IPv4 network, if this is one inside `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
fn mapped(network: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(v6) = network else {
        return None;
    };
    let prefix = v6.prefix_len().checked_sub(96)?;
    Ipv4Net::new(v6.addr().to_ipv4_mapped()?, prefix).ok()
}

/// Host and port of `host:port`.
fn split(text: &str) -> Result<(&str, u16), Wrong> {
    if text.is_empty() {
        return Err((
            String::from("this is not an address"),
            String::from("write \"HOST:PORT\""),
        ));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err((
            format!("`{text}` is a URL"),
            format!("leave out `{scheme}://`: \"{rest}\""),
        ));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(bare_ipv6(text));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let label = format!("write \"{text}:PORT\"");
        return Err((format!("`{text}` has no port"), label));
    };
    if host.is_empty() {
        return Err((format!("`{text}` has no host"), format!("write \"HOST:{port}\"")));
    }
    if text.starts_with('[') && text.ends_with(']') {
        return Err((format!("`{text}` has no port"), format!("write \"{text}:PORT\"")));
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) || port.is_empty() {
        return Err((
            format!("`{port}` is not a port"),
            String::from("write a number, 1 to 65535"),
        ));
    }
    let number = port
        .parse()
        .map_err(|_| (format!("there is no port {port}"), String::from("at most 65535")))?;
    Ok((host, number))
}

/// `::1:80` reads as an address of its own, and nobody can tell where a port begins.
fn bare_ipv6(text: &str) -> Wrong {
    let label = match text.rsplit_once(':') {
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok() => {
            format!("write \"[{host}]:{port}\", or \"[{text}]:PORT\"")
        }
        _ => format!("write \"[{text}]:PORT\""),
    };
    (format!("`{text}` is an IPv6 address without brackets"), label)
}

fn port_zero(text: &str) -> Wrong {
    (
        format!("`{text}`: no server answers on port 0"),
        String::from("at least 1"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right() {
        for text in ["0.0.0.0:0", "[::]:443", "127.0.0.1:65535"] {
            assert_eq!(listen(text).unwrap().to_string(), text);
        }
        for text in [
            "10.0.0.1:1",
            "[::1]:80",
            "db.internal:5432",
            "db.internal.:5432",
            "my_db:1",
            "1a:1",
        ] {
            assert_eq!(server(text).unwrap().to_string(), text);
        }
        assert_eq!(
            server("bücher.example:1").unwrap().to_string(),
            "xn--bcher-kva.example:1"
        );
        for (text, network_of) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), network_of);
        }
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (text, label) in [
            (":80", r#"write ["0.0.0.0:80", "[::]:80"]"#),
            ("80", r#"write ["0.0.0.0:80", "[::]:80"]"#),
            ("::1:80", r#"write "[::1]:80", or "[::1:80]:PORT""#),
            ("::1", r#"write "[::1]:PORT""#),
            ("[::1]", r#"write "[::1]:PORT""#),
            ("10.0.0.1", r#"write "10.0.0.1:PORT""#),
            ("[::ffff:10.0.0.1]:80", r#"write "10.0.0.1:80""#),
            ("10.0.0.1:65536", "at most 65535"),
        ] {
            assert_eq!(listen(text).unwrap_err().1, label, "{text}");
        }
        for (text, label) in [
            ("10.0.0.1:0", "at least 1"),
            ("a:+80", "write a number, 1 to 65535"),
            ("tcp://10.0.0.1:80/", r#"leave out `tcp://`: "10.0.0.1:80""#),
            ("10.0.0.256:80", "it has four numbers, 0 to 255"),
            ("unix:/run/db.sock", "write \"host:port\""),
        ] {
            assert_eq!(server(text).unwrap_err().1, label, "{text}");
        }
        assert_eq!(network("10.0.0.1/8").unwrap_err().1, r#"write "10.0.0.0/8""#);
        assert_eq!(network("::ffff:10.0.0.0/104").unwrap_err().1, r#"write "10.0.0.0/8""#);
        assert!(network("10.0.0.0/33").is_err());
    }
}
