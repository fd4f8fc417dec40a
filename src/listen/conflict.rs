//! Why an address cannot be bound, and what to do about it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::ListenAddr;
use crate::error::{chain, os_error};

/// The remedy where a socket of the service manager does not listen any more.
const RESTART_UNIT: &str = "restart the socket unit of the service manager, and acequia";

/// The remedy where the process has no file descriptor left.
const RAISE_LIMIT: &str = "raise the limit of open files (`ulimit -n`)";

/// The remedy where the system refused a call whose result does not depend on the address. The error names the call:
/// see `refused` in the parent module.
const ALLOW_CALL: &str = "allow that call in the sandbox or seccomp profile that this process runs in";

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: ListenAddr,
    /// Why, and what to do about it.
    #[source]
    pub cause: Box<BindCause>,
}

/// Why an address could not be bound. Its text ends with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{}; {}", chain(.error), self.remedy())]
pub struct BindCause {
    /// The error of the system, or one of ours. Ours has no OS error number itself; its source may have one
    /// ([`os_error`]).
    pub error: io::Error,
    address: ListenAddr,
    /// What holds the address; `None`: the address is not in use, or its holder is not known.
    holder: Option<Holder>,
}

/// The holder of an address that cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// A connection with this local port: one that was opened from this machine, or one that was accepted by a listener
    /// that has stopped.
    Connection,
    /// A listening socket.
    Listener,
}

impl BindError {
    /// To be called right after the failure: it looks up what holds the address.
    #[must_use]
    pub fn new(address: ListenAddr, error: io::Error) -> Self {
        let is_taken = error.raw_os_error() == Some(libc::EADDRINUSE);
        let cause = BindCause {
            error,
            address,
            holder: is_taken.then(|| holder(address)).flatten(),
        };
        Self {
            address,
            cause: Box::new(cause),
        }
    }
}

impl BindCause {
    fn remedy(&self) -> Cow<'static, str> {
        let Some(ip) = self.address.ip() else {
            return self.remedy_for_unix_socket().into();
        };
        let remedy = match (self.error.raw_os_error(), self.holder) {
            (Some(libc::EADDRINUSE), Some(Holder::Listener)) => {
                "another process listens there, `ss -ltnp` shows which: stop it, or bind another port"
            }
            (Some(libc::EADDRINUSE), Some(Holder::Connection)) => {
                "a connection has that port, `ss -tanp` shows whose: wait for its end; if it is a connection to another \
                 server, keep the port from such connections by net.ipv4.ip_local_reserved_ports, or bind a port outside \
                 of net.ipv4.ip_local_port_range"
            }
            (Some(libc::EADDRINUSE), None) => {
                "another socket has that address, `ss -ltnp` and `ss -tanp` show the sockets that listen or are \
                 connected: stop the process that has it, or bind another port"
            }
            (Some(libc::EADDRNOTAVAIL), _) => {
                let version = if ip.is_ipv4() { 4 } else { 6 };
                return format!(
                    "no interface of this machine has that address, `ip address` shows the addresses that exist; for a \
                     floating IP set net.ipv{version}.ip_nonlocal_bind to 1"
                )
                .into();
            }
            (Some(libc::EACCES | libc::EPERM), _)
                if self.address.port().is_some_and(|port| (1..1024).contains(&port)) =>
            {
                "ports below 1024 need root, CAP_NET_BIND_SERVICE or a lower net.ipv4.ip_unprivileged_port_start"
            }
            (Some(libc::EACCES | libc::EPERM), _) => {
                "allow that port in the security policy of this system (SELinux, AppArmor, a seccomp profile) and in \
                 net.ipv4.ip_unprivileged_port_start, or bind another port"
            }
            (Some(libc::EAFNOSUPPORT), _) => "this system has no IPv6: leave that address out",
            (Some(libc::EMFILE | libc::ENFILE), _) => RAISE_LIMIT,
            (None, _) if self.error.kind() == io::ErrorKind::NotConnected => RESTART_UNIT,
            (None, _) => ALLOW_CALL,
            _ => "bind another address",
        };
        remedy.into()
    }

    fn remedy_for_unix_socket(&self) -> &'static str {
        let number = os_error(&self.error);
        let is_ours = self.error.raw_os_error().is_none();
        let names_refused_call = is_ours && number.is_some();
        match self.error.kind() {
            _ if matches!(number, Some(libc::EMFILE | libc::ENFILE)) => RAISE_LIMIT,
            _ if names_refused_call => ALLOW_CALL,
            io::ErrorKind::AddrInUse => "stop that process, or use another path",
            io::ErrorKind::AlreadyExists => "use another path, or move the file away",
            io::ErrorKind::NotFound => "create its directory",
            io::ErrorKind::NotConnected => RESTART_UNIT,
            // The error is of `connect_to_listener`: the permissions of the file forbid to connect.
            io::ErrorKind::PermissionDenied if is_ours => "remove it if nothing listens there, or use another path",
            io::ErrorKind::PermissionDenied => {
                "let this process's user write in the socket's directory, or use another path"
            }
            _ => "use another path",
        }
    }
}

/// What holds the address; a listener is preferred to a connection. `None`: the kernel does not list the holder, for
/// example because it is a socket that is bound and neither listens nor is connected.
fn holder(address: ListenAddr) -> Option<Holder> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .into_iter()
        .filter_map(|table| File::open(table).ok())
        .flat_map(|table| BufReader::new(table).lines().map_while(Result::ok))
        .filter_map(|line| holder_in(&line, address))
        .max()
}

/// What kind of holder a line of the kernel's tables of TCP sockets (proc_pid_net(5)) shows for the address, if any:
///
/// ```text
///   sl  local_address rem_address   st tx_queue rx_queue ...
///    0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 ...
/// ```
fn holder_in(line: &str, address: ListenAddr) -> Option<Holder> {
    const LISTEN: &str = "0A"; // TCP_LISTEN in include/net/tcp_states.h of Linux
    const TIME_WAIT: &str = "06"; // does not prevent a bind with SO_REUSEADDR
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?; // after the remote address
    if u16::from_str_radix(port, 16).ok()? != address.port()? {
        return None;
    }
    let (ours, theirs) = (address.ip()?, ip_of(ip)?);
    let may_have_both_families = theirs == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let conflicts = match theirs.to_canonical() {
        same if same == ours => true,
        other if other.is_ipv4() == ours.is_ipv4() => other.is_unspecified() || ours.is_unspecified(),
        _ => may_have_both_families,
    };
    match state {
        _ if !conflicts => None,
        LISTEN => Some(Holder::Listener),
        TIME_WAIT => None,
        _ => Some(Holder::Connection),
    }
}

/// Parses an IP address of the kernel's tables: words of 32 bits in hexadecimal, each in the byte order of the machine.
fn ip_of(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..text.len()).step_by(8) {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::addr::UnixPath;
    use crate::error::with_context;

    fn found(line: &str, address: &str) -> Option<Holder> {
        holder_in(line, ListenAddr::new(address.parse().unwrap()))
    }

    #[test]
    fn the_kernels_tables_show_what_holds_an_address() {
        let listener = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1";
        assert_eq!(found(listener, "127.0.0.1:8080"), Some(Holder::Listener));
        assert_eq!(found(listener, "0.0.0.0:8080"), Some(Holder::Listener));
        for other in ["127.0.0.2:8080", "127.0.0.1:8081", "[::1]:8080", "[::]:8080"] {
            assert_eq!(found(listener, other), None, "{other}");
        }
        let outgoing = listener.replace(" 0A ", " 01 ");
        assert_eq!(found(&outgoing, "0.0.0.0:8080"), Some(Holder::Connection));
        assert_eq!(found(&listener.replace(" 0A ", " 06 "), "0.0.0.0:8080"), None);
        let both = "   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0";
        assert_eq!(found(both, "10.0.0.1:8080"), Some(Holder::Listener));
        assert_eq!(found(both, "[::1]:8080"), Some(Holder::Listener));
        let mapped = "   1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:0001 01 0";
        assert_eq!(found(mapped, "127.0.0.1:8080"), Some(Holder::Connection));
        assert_eq!(found("  sl  local_address rem_address   st", "127.0.0.1:8080"), None);
    }

    #[test]
    fn the_remedy_for_a_unix_socket_follows_the_error() {
        let ours = || io::Error::new(io::ErrorKind::PermissionDenied, "the file may not be connected to");
        let refused = || {
            with_context(
                io::Error::from_raw_os_error(libc::EPERM),
                "the system refuses epoll_create1",
            )
        };
        for (error, expected) in [
            (ours(), "remove it"),
            (refused(), "seccomp"),
            (
                io::Error::from_raw_os_error(libc::EACCES),
                "write in the socket's directory",
            ),
            (io::Error::from_raw_os_error(libc::EMFILE), "ulimit -n"),
        ] {
            let address = ListenAddr::from_unix(UnixPath::new("/run/a.sock").unwrap());
            let text = BindError::new(address, error).cause.to_string();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_refused_port_gets_the_remedy_for_low_ports_only_if_it_is_low() {
        for (address, expected) in [("127.0.0.1:443", true), ("[::1]:1023", true), ("127.0.0.1:8443", false)] {
            let address = ListenAddr::new(address.parse().unwrap());
            let error = io::Error::from_raw_os_error(libc::EACCES);
            let text = BindError::new(address, error).cause.to_string();
            assert_eq!(text.contains("CAP_NET_BIND_SERVICE"), expected, "{text}");
        }
    }
}
