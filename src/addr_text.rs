//! Parses addresses: `10.0.0.1:80`, `[::1]:80`, `[fe80::1%eth0]:80`, `db.internal:5432`, `db.internal:5432@10.0.0.1`,
//! `unix:/run/db.sock`, `10.0.0.0/8`.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ipnet::IpNet;

use crate::addr::{Interface, ListenAddr, ServerAddr, ServerLocation, UnixPath, is_of_one_host, parse_network};
use crate::name::ServerName;
use crate::text::parse_digits;

#[cfg(test)]
mod tests;

/// Why a value is invalid, and what to write instead: the message and the hint of an error.
pub(crate) type InvalidValue = (String, String);

/// An address to listen on.
pub(crate) fn listen(text: &str) -> Result<ListenAddr, InvalidValue> {
    if let Some(path) = unix_path(text)? {
        return Ok(ListenAddr::from_unix(path));
    }
    check_interface(text)?;
    if let Some((address, interface)) = split_interface(text) {
        check_listen(text, SocketAddr::V6(address))?;
        return with_interface(interface, |interface| ListenAddr::on_interface(address, interface));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        check_scope(address)?;
        check_listen(text, address)?;
        return Ok(ListenAddr::new(address));
    }
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:"))
        && parse_digits::<u16>(port).is_some()
    {
        let hint = format!("write [\"0.0.0.0:{port}\", \"[::]:{port}\"]");
        return Err((format!("`{text}` has no address"), hint));
    }
    if parse_digits::<u16>(text).is_some() {
        let hint = format!("write [\"0.0.0.0:{text}\", \"[::]:{text}\"]");
        return Err((format!("`{text}` is only a port"), hint));
    }
    let (host, _) = split(text)?;
    let hint = String::from(r#"write an IP address and a port, as in "0.0.0.0:443" or "[::]:443""#);
    Err((format!("`{host}` is not an IP address"), hint))
}

/// The location of a server.
pub(crate) fn server(text: &str) -> Result<ServerLocation, InvalidValue> {
    if let Some(path) = unix_path(text)? {
        return Ok(ServerLocation::Address(ServerAddr::from_unix(path)));
    }
    if let Some((host_and_port, ip)) = text.rsplit_once('@')
        && ip.split('%').next().is_some_and(|ip| ip.parse::<IpAddr>().is_ok())
    {
        return resolved(host_and_port, ip);
    }
    check_interface(text)?;
    // Port 0 is rejected below.
    if let Some((address, interface)) = split_interface(text).filter(|(address, _)| address.port() != 0) {
        check_one_host(IpAddr::V6(*address.ip()))?;
        return with_interface(interface, |interface| ServerAddr::on_interface(address, interface))
            .map(ServerLocation::Address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        check_scope(address)?;
        check_one_host(address.ip())?;
        return match address.port() {
            0 => Err(port_zero(text)),
            _ => Ok(ServerLocation::Address(ServerAddr::new(address))),
        };
    }
    let (host, port) = split(text)?;
    if port == 0 {
        return Err(port_zero(text));
    }
    let name = ServerName::from_config(host).map_err(|error| {
        let hint = String::from(r#"write "name:port", "10.0.0.1:port" or "[::1]:port""#);
        (format!("`{host}` is neither a name nor an IP address: {error}"), hint)
    })?;
    // A last label of digits is a mistyped IPv4 address, or one in an old notation (`10.1`), which the resolver would
    // accept.
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next();
    if last.is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit())) {
        return Err((
            format!("`{host}` is not an IP address"),
            String::from("an IPv4 address has four numbers, 0 to 255"),
        ));
    }
    // An ASCII name stays as it is written, because a trailing dot matters to the resolver.
    let host = if host.is_ascii() { host } else { name.as_str() };
    Ok(ServerLocation::Name {
        host: host.into(),
        port,
    })
}

/// The location of a host name and a port with one of its addresses, as in `db.internal:5432@fe80::1%eth0`.
fn resolved(host_and_port: &str, ip: &str) -> Result<ServerLocation, InvalidValue> {
    let no_host_name = || {
        let hint = String::from("write the address alone, or \"HOST:PORT@ADDRESS\" with a host name");
        (format!("`{host_and_port}` has no host name"), hint)
    };
    // Otherwise `server` and this function would call each other once for each `@` of the text.
    if host_and_port.contains('@') {
        return Err(no_host_name());
    }
    let location = server(host_and_port)?;
    let ServerLocation::Name { port, .. } = location else {
        return Err(no_host_name());
    };
    Ok(ServerLocation::Resolved {
        address: self::ip(ip)?.with_port(port),
        host_and_port: location.to_string().into(),
    })
}

/// An IP address without a port. The port of the result is 0.
pub(crate) fn ip(text: &str) -> Result<ServerAddr, InvalidValue> {
    let invalid = || {
        let hint = "write an address such as \"10.0.0.11\"; the port has a key of its own, `port`";
        (format!("`{text}` is not an IP address"), String::from(hint))
    };
    check_interface(text)?;
    let with_port = if text.contains('.') && !text.contains(':') {
        format!("{text}:0")
    } else {
        format!("[{text}]:0")
    };
    if let Some((address, interface)) = split_interface(&with_port) {
        check_one_host(IpAddr::V6(*address.ip()))?;
        return with_interface(interface, |interface| ServerAddr::on_interface(address, interface));
    }
    let address: SocketAddr = with_port.parse().map_err(|_| invalid())?;
    check_scope(address)?;
    check_one_host(address.ip())?;
    Ok(ServerAddr::new(address))
}

/// A network, or a single address.
pub(crate) fn network(text: &str) -> Result<IpNet, InvalidValue> {
    parse_network(text).map_err(|error| (error.to_string(), error.hint()))
}

/// The path of `unix:/run/db.sock`; `None`: the text has another form. The forms in which HAProxy and others write such
/// an address are errors with a hint.
fn unix_path(text: &str) -> Result<Option<UnixPath>, InvalidValue> {
    let others = ["unix@", "uds@"].iter().find_map(|prefix| text.strip_prefix(prefix));
    if let Some(path) = others.or_else(|| text.starts_with('/').then_some(text)) {
        return Err((format!("`{text}` is not an address"), format!("write \"unix:{path}\"")));
    }
    let Some(path) = text.strip_prefix("unix:") else {
        return Ok(None);
    };
    UnixPath::new(path).map(Some).map_err(|error| {
        let hint = match path.strip_prefix("//") {
            Some(path) => format!("write \"unix:{path}\""),
            None => String::from("write \"unix:/run/NAME.sock\""),
        };
        (format!("`{text}`: {error}"), hint)
    })
}

/// The address and the interface of `[fe80::1%eth0]:443`. `None`: the text has another form, or the scope is a number.
fn split_interface(text: &str) -> Option<(SocketAddrV6, &str)> {
    let (host, port) = text.strip_prefix('[')?.rsplit_once("]:")?;
    let (ip, interface) = host.split_once('%')?;
    if text.parse::<SocketAddr>().is_ok() {
        return None;
    }
    Some((
        SocketAddrV6::new(ip.parse().ok()?, parse_digits(port)?, 0, 0),
        interface,
    ))
}

/// The address with the index of the interface, or the error if the interface does not exist.
fn with_interface<T>(name: &str, resolve: impl FnOnce(Interface) -> io::Result<T>) -> Result<T, InvalidValue> {
    let absent = || {
        let hint = "write a name or a number that `ip link` shows";
        (format!("unknown interface `{name}`"), String::from(hint))
    };
    let interface = Interface::new(name).ok_or_else(absent)?;
    resolve(interface).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => absent(),
        _ => (format!("cannot look up the interface `{name}`: {error}"), String::new()),
    })
}

/// A link-local address is unique on one link only (RFC 4007, section 6); the kernel rejects one without a scope.
fn check_scope(address: SocketAddr) -> Result<(), InvalidValue> {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            let message = format!("`{}` is a link-local address without an interface", v6.ip());
            Err((message, format!("add the interface, as in \"[{}%eth0]\"", v6.ip())))
        }
        _ => Ok(()),
    }
}

/// Rejects an interface with an address that is not link-local, because the kernel ignores the interface. Addresses
/// that are invalid or not of one host pass here: the callers reject them, with errors that say more.
fn check_interface(text: &str) -> Result<(), InvalidValue> {
    let Some((ip, rest)) = text.trim_start_matches('[').split_once('%') else {
        return Ok(());
    };
    match ip.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.is_unicast_link_local() => Ok(()),
        Ok(ip) if is_of_one_host(ip) => {
            let interface = rest.split([']', ':']).next().unwrap_or_default();
            let without = text.replacen(&format!("%{interface}"), "", 1);
            let message = format!("`{text}` has an interface, but is not a link-local address");
            Err((message, format!("write \"{without}\"")))
        }
        _ => Ok(()),
    }
}

/// Rejects IPv4-mapped, multicast and broadcast addresses, and unspecified addresses with an interface, because the
/// kernel ignores the interface.
fn check_listen(text: &str, address: SocketAddr) -> Result<(), InvalidValue> {
    // The kernel would accept an IPv4-mapped address, because only sockets at `[::]` have IPV6_V6ONLY. The socket would
    // then listen on the IPv4 address.
    if let IpAddr::V6(v6) = address.ip()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let message = format!("`{text}` is an IPv4-mapped IPv6 address");
        return Err((message, format!("write \"{v4}:{}\"", address.port())));
    }
    if !address.ip().is_unspecified() {
        return check_one_host(address.ip());
    }
    if text.contains('%') {
        let message = format!("`{text}` does not limit the listener to an interface");
        let hint = format!("write the addresses of the interface, or \"[::]:{}\"", address.port());
        return Err((message, hint));
    }
    Ok(())
}

/// Rejects multicast, broadcast and unspecified addresses: connecting to an unspecified one would reach this machine.
fn check_one_host(ip: IpAddr) -> Result<(), InvalidValue> {
    if is_of_one_host(ip) {
        return Ok(());
    }
    let canonical = ip.to_canonical();
    let hint = match canonical {
        _ if !canonical.is_unspecified() => "multicast and broadcast addresses have no TCP",
        IpAddr::V4(_) => "for this machine write 127.0.0.1",
        IpAddr::V6(_) => "for this machine write [::1]",
    };
    Err((format!("`{ip}` is not the address of one host"), String::from(hint)))
}

/// Host and port of `host:port`.
fn split(text: &str) -> Result<(&str, u16), InvalidValue> {
    if text.is_empty() {
        return Err((
            String::from("the address is empty"),
            String::from("write \"HOST:PORT\""),
        ));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err((
            format!("`{text}` is a URL"),
            format!("write it without `{scheme}://`: \"{rest}\""),
        ));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(bare_ipv6(text));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let hint = format!("write \"{text}:PORT\"");
        return Err((format!("`{text}` has no port"), hint));
    };
    // The last colon is one of the address.
    if text.starts_with('[') && text.ends_with(']') {
        return Err((format!("`{text}` has no port"), format!("write \"{text}:PORT\"")));
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) || port.is_empty() {
        return Err((
            format!("`{port}` is not a port"),
            String::from("write a number, 1 to 65535"),
        ));
    }
    if host.is_empty() {
        return Err((format!("`{text}` has no host"), format!("write \"HOST:{port}\"")));
    }
    let number = port
        .parse()
        .map_err(|_| (format!("port {port} is out of range"), String::from("at most 65535")))?;
    Ok((host, number))
}

/// `::1:80` is a valid address by itself, so that it is ambiguous where the port begins.
fn bare_ipv6(text: &str) -> InvalidValue {
    let hint = match text.rsplit_once(':') {
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() && parse_digits::<u16>(port).is_some() => {
            format!("write \"[{host}]:{port}\", or \"[{text}]:PORT\"")
        }
        _ => format!("write \"[{text}]:PORT\""),
    };
    (format!("`{text}` is an IPv6 address without brackets"), hint)
}

fn port_zero(text: &str) -> InvalidValue {
    (
        format!("`{text}`: port 0 is not valid for a server"),
        String::from("at least 1"),
    )
}
