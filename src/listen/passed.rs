//! Listening sockets that the service manager passes at the start (socket activation): sd_listen_fds(3).
//!
//! The service manager keeps them open: clients can queue in them before this process runs, and while it is restarted.

#![allow(unsafe_code)] // a descriptor that was inherited is known only by its number

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Socket, Type};

use crate::addr::{ListenAddr, UnixPath};
use crate::error::chain;

/// The sockets that were passed, by address. Each is a duplicate; the inherited descriptors are never closed.
#[derive(Debug, Default)]
pub struct PassedSockets(HashMap<ListenAddr, Socket>);

/// Why a passed socket is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("the system refuses it")]
    System(#[from] io::Error),
    #[error("it is not a listening stream socket; set ListenStream= and Accept=no in its unit")]
    NoListener,
    #[error("it has no address that a listener can have")]
    Address,
    #[error("it takes clients of IPv4, too; set BindIPv6Only=ipv6-only in its unit, and pass another for IPv4")]
    BothFamilies,
    #[error("another one has the same address")]
    SameAddress,
}

impl PassedSockets {
    /// The sockets that the environment names, if LISTEN_PID is this process. Those that cannot be used are logged, and
    /// left out; all are if the environment is not valid, for example because it names a descriptor that is not open.
    #[must_use]
    pub fn inherited() -> Self {
        let mut all = Self::default();
        let passed = sd_notify::listen_fds_with_names().map(Iterator::collect);
        let passed: Vec<_> = passed.unwrap_or_else(|error| {
            tracing::warn!(%error, "the sockets of the service manager are not used: the LISTEN_ variables are not valid");
            Vec::new()
        });
        for (descriptor, name) in passed {
            if let Err(reason) = all.add(descriptor) {
                tracing::warn!(descriptor, name, reason = %chain(&reason), "a socket of the service manager is not used");
            }
        }
        all
    }

    /// The socket with this address.
    #[must_use]
    pub fn at(&self, address: ListenAddr) -> Option<&Socket> {
        self.0.get(&address)
    }

    /// The addresses of all passed sockets, in no particular order.
    pub fn addresses(&self) -> impl Iterator<Item = ListenAddr> {
        self.0.keys().copied()
    }

    fn add(&mut self, descriptor: RawFd) -> Result<(), Unusable> {
        // SAFETY: the environment says that the descriptor is open, and nothing in this process closes it. If it is not
        // open, the calls below fail (EBADF).
        let inherited = unsafe { BorrowedFd::borrow_raw(descriptor) };
        fcntl_setfd(inherited, FdFlags::CLOEXEC).map_err(io::Error::from)?; // not for the children of this process
        let socket = Socket::from(inherited.try_clone_to_owned()?);
        let address = usable_address(&socket)?;
        socket.set_nonblocking(true)?;
        let Entry::Vacant(entry) = self.0.entry(address) else {
            return Err(Unusable::SameAddress);
        };
        entry.insert(socket);
        Ok(())
    }
}

/// The address of a socket that clients can be accepted from.
fn usable_address(socket: &Socket) -> Result<ListenAddr, Unusable> {
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(Unusable::NoListener);
    }
    let address = socket.local_addr()?;
    if let Some(address) = address.as_socket() {
        let is_any_ipv6 = address.ip() == IpAddr::from([0u16; 8]);
        return match is_any_ipv6 && !socket.only_v6()? {
            true => Err(Unusable::BothFamilies),
            false => Ok(ListenAddr::new(address)),
        };
    }
    let path = address.as_pathname().and_then(|path| path.to_str());
    let path = path.and_then(|path| UnixPath::new(path).ok());
    path.map(ListenAddr::from_unix).ok_or(Unusable::Address)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixListener;

    use socket2::Domain;

    use super::*;

    fn added(socket: impl Into<OwnedFd>) -> Result<ListenAddr, String> {
        let (mut all, socket) = (PassedSockets::default(), socket.into());
        all.add(socket.as_raw_fd()).map_err(|error| chain(&error))?;
        assert_eq!(all.addresses().count(), 1);
        Ok(all.addresses().next().unwrap())
    }

    #[test]
    fn a_passed_socket_is_identified_by_its_address() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        assert_eq!(added(tcp), Ok(ListenAddr::new(address)));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let expected = ListenAddr::from_unix(UnixPath::new(path.to_str().unwrap()).unwrap());
        assert_eq!(added(UnixListener::bind(path).unwrap()), Ok(expected));
    }

    #[test]
    fn unusable_descriptors_are_refused_with_the_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let refused = |socket: OwnedFd| added(socket).unwrap_err();
        assert!(refused(connected.into()).contains("not a listening stream socket"));
        assert!(refused(UdpSocket::bind("127.0.0.1:0").unwrap().into()).contains("not a listening stream socket"));
        assert!(refused(std::fs::File::open("/dev/null").unwrap().into()).contains("the system refuses it"));
        let both = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        both.set_only_v6(false).unwrap();
        both.bind(&"[::]:0".parse::<std::net::SocketAddr>().unwrap().into())
            .unwrap();
        both.listen(1).unwrap();
        assert!(refused(both.into()).contains("BindIPv6Only=ipv6-only"));
        let mut all = PassedSockets::default();
        assert!(all.add(listener.as_raw_fd()).is_ok());
        let kept = all.0.values().next().unwrap().as_raw_fd();
        assert!(matches!(all.add(listener.as_raw_fd()), Err(Unusable::SameAddress)));
        assert_eq!(
            all.0.values().next().unwrap().as_raw_fd(),
            kept,
            "the first one is used"
        );
        assert!(matches!(all.add(1 << 20), Err(Unusable::System(_))));
    }
}
