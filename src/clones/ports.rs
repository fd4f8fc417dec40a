//! The ports of clones.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ports that clones of all pools have.
#[derive(Clone, Default)]
pub(super) struct Ports {
    // A std mutex: locked for a few lines.
    taken: Arc<Mutex<UsedPorts>>,
}

#[derive(Default)]
struct UsedPorts {
    ports: HashSet<u16>,
    /// The port that was taken last. The search begins after it, so that a port that has just become free is taken as late as
    /// possible.
    last: u16,
}

/// The port of a clone. Dropping it gives it back.
pub(super) struct Port {
    pub(super) number: u16,
    ports: Ports,
}

impl Ports {
    /// A port of this range that no clone has, and at which nothing listens; `None`: there is none.
    pub(super) fn take(&self, range: &RangeInclusive<u16>) -> Option<Port> {
        let mut taken = self.lock();
        let above = |port: &u16| *port > taken.last;
        let in_turn = range
            .clone()
            .filter(above)
            .chain(range.clone().filter(|port| !above(port)));
        let is_free =
            |port: &u16| !taken.ports.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let number = in_turn.into_iter().find(is_free)?;
        taken.ports.insert(number);
        taken.last = number;
        Some(Port {
            number,
            ports: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, UsedPorts> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports.lock().ports.remove(&self.number);
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
    }
}
