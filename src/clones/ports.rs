//! The ports of clones.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Gives ports to the clones of all pools.
#[derive(Default)]
pub(super) struct Ports {
    /// The port that was taken last. The search begins after it, so that a port that has just become free is taken as
    /// late as possible.
    last: AtomicU16,
}

/// The port of a clone. Dropping this value makes the port free again.
pub(super) struct Port {
    pub(super) number: u16,
    /// Tells all processes of acequia that the port is taken, because a clone begins to listen only some time after its
    /// start. The name of this socket is in the abstract namespace (unix(7)), which belongs to the network namespace,
    /// as ports do. The name is free again when this process ends.
    _lock: UnixDatagram,
}

impl Ports {
    /// A port of this range that no clone of this or another acequia has, and at which nothing listens on 127.0.0.1;
    /// `None`: no port of the range can be taken.
    pub(super) fn take(&self, range: &RangeInclusive<u16>) -> Option<Port> {
        let last = self.last.load(Relaxed);
        let (above, others) = range.clone().partition::<Vec<_>, _>(|port| *port > last);
        let port = above.into_iter().chain(others).find_map(Port::take)?;
        self.last.store(port.number, Relaxed);
        Some(port)
    }
}

impl Port {
    /// `None`: it is taken, or this process may not bind it, or may open no further socket.
    fn take(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("acequia/clone-port/{number}")).ok()?;
        let lock = UnixDatagram::bind_addr(&name).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_taken_in_turn_and_never_twice() {
        let occupied = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let middle = occupied.local_addr().unwrap().port();
        let range = middle - 2..=middle + 2;
        let ports = Ports::default();
        let mut held: Vec<Port> = std::iter::from_fn(|| ports.take(&range)).collect();
        assert!(held.windows(2).all(|two| two[0].number < two[1].number));
        assert!(!held.is_empty() && held.iter().all(|port| port.number != middle));
        let (first, last) = (held[0].number, held[held.len() - 1].number);
        held.remove(0);
        assert_eq!(ports.take(&range).map(|port| port.number), Some(first), "after {last}");
        let of_another_acequia = Ports::default();
        // The port taken in the previous assertion was dropped at once.
        assert_eq!(
            of_another_acequia.take(&(first..=first)).map(|port| port.number),
            Some(first)
        );
        assert!(
            of_another_acequia.take(&(last..=last)).is_none(),
            "the clone with {last} does not listen yet"
        );
    }
}
