//! Networks that an operator denies while the process runs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::networks::NetworkSet;

/// The most edits that a guard holds: memory is bounded, and each edit builds the set of networks anew. More networks
/// belong in the `deny_file` of the guard.
pub const EDITS_MAX: usize = 10_000;

/// An edit: an operator's order to deny a network.
#[derive(Clone, Debug)]
pub struct DenyEdit {
    /// The network.
    pub network: IpNet,
    /// Who made the edit.
    pub by: Arc<str>,
    /// When it was made.
    pub at: SystemTime,
    /// When it ends; `None`: only when it is undone.
    pub until: Option<Instant>,
}

/// The edits of a guard, and what they deny at this moment.
#[derive(Debug, Default)]
pub(super) struct DenyEdits {
    // A blocking mutex: locked when edits are changed, listed or counted, and when one ends.
    edits: Mutex<Vec<DenyEdit>>,
    /// `None`: no network is denied. That is nearly always so.
    denied: ArcSwapOption<DeniedNow>,
}

/// The networks that the edits deny until the next of them ends.
#[derive(Debug)]
struct DeniedNow {
    networks: NetworkSet,
    until: Option<Instant>,
}

impl DenyEdits {
    /// Whether an edit denies an address.
    pub(super) fn denies(&self, address: IpAddr, now: Instant) -> bool {
        let mut denied = self.denied.load();
        if denied
            .as_ref()
            .and_then(|denied| denied.until)
            .is_some_and(|until| until <= now)
        {
            self.publish_ended(now);
            denied = self.denied.load();
        }
        denied.as_ref().is_some_and(|denied| denied.networks.contains(address))
    }

    /// Adds an edit; it replaces an edit of the same network. Returns whether there was room for it.
    pub(super) fn add(&self, edit: DenyEdit, now: Instant) -> bool {
        let mut edits = self.edits.lock();
        edits.retain(|other| other.network != edit.network && !has_ended(other, now));
        let has_room = edits.len() < EDITS_MAX;
        if has_room {
            edits.push(edit);
        }
        self.publish(&mut edits, now);
        has_room
    }

    /// Removes the edit of exactly this network. Returns whether there was one.
    pub(super) fn remove(&self, network: IpNet, now: Instant) -> bool {
        let mut edits = self.edits.lock();
        edits.retain(|edit| !has_ended(edit, now));
        let before = edits.len();
        edits.retain(|edit| edit.network != network);
        let is_removed = edits.len() < before;
        self.publish(&mut edits, now);
        is_removed
    }

    /// The edits that hold now, the oldest first.
    pub(super) fn list(&self, now: Instant) -> Vec<DenyEdit> {
        let edits = self.edits.lock();
        edits.iter().filter(|edit| !has_ended(edit, now)).cloned().collect()
    }

    /// How many edits hold now.
    pub(super) fn count(&self, now: Instant) -> usize {
        let edits = self.edits.lock();
        edits.iter().filter(|edit| !has_ended(edit, now)).count()
    }

    /// Forgets edits that have ended, and publishes what the others deny.
    fn publish(&self, edits: &mut Vec<DenyEdit>, now: Instant) {
        edits.retain(|edit| !has_ended(edit, now));
        let denied = (!edits.is_empty()).then(|| DeniedNow {
            networks: edits.iter().map(|edit| edit.network).collect(),
            until: edits.iter().filter_map(|edit| edit.until).min(),
        });
        self.denied.store(denied.map(Arc::new));
    }

    /// Publishes the denied networks after an edit has ended. If several workers notice that at the same time, only one
    /// of them publishes; the others do not wait, and may use the old networks until it has published.
    fn publish_ended(&self, now: Instant) {
        if let Some(mut edits) = self.edits.try_lock()
            && edits.iter().any(|edit| has_ended(edit, now))
        {
            self.publish(&mut edits, now);
        }
    }
}

fn has_ended(edit: &DenyEdit, now: Instant) -> bool {
    edit.until.is_some_and(|until| until <= now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_edit_denies_until_it_ends_or_is_undone() {
        let (edits, start) = (DenyEdits::default(), Instant::now());
        let edit = |network: &str, seconds: Option<u64>| DenyEdit {
            network: network.parse().unwrap(),
            by: "test".into(),
            at: SystemTime::now(),
            until: seconds.map(|seconds| start + Duration::from_secs(seconds)),
        };
        let after = |seconds| start + Duration::from_secs(seconds);
        let denied = |address: &str, seconds| edits.denies(address.parse().unwrap(), after(seconds));
        assert!(!denied("10.0.0.1", 0));
        assert!(edits.add(edit("10.0.0.0/8", None), start));
        assert!(edits.add(edit("192.0.2.0/24", Some(10)), start));
        assert_eq!([9, 10].map(|seconds| edits.count(after(seconds))), [2, 1]);
        assert!(denied("10.0.0.1", 0) && denied("192.0.2.1", 9) && !denied("192.0.2.1", 10) && denied("10.0.0.1", 10));
        assert_eq!((edits.list(after(10)).len(), edits.count(after(10))), (1, 1));
        assert!(!edits.remove("10.0.0.0/9".parse().unwrap(), after(11)));
        assert!(edits.remove("10.0.0.0/8".parse().unwrap(), after(11)));
        assert!(!denied("10.0.0.1", 12));
        assert!(edits.add(edit("10.0.0.0/8", Some(20)), after(12)));
        assert!(edits.add(edit("10.0.0.0/8", None), after(12)));
        assert!(denied("10.0.0.1", 30), "the edit was replaced");
    }

    #[test]
    fn edits_are_bounded() {
        let (edits, now) = (DenyEdits::default(), Instant::now());
        let push = |number: u32| {
            let edit = DenyEdit {
                network: IpNet::from(IpAddr::from(number.to_be_bytes())),
                by: "test".into(),
                at: SystemTime::now(),
                until: None,
            };
            edits.edits.lock().push(edit); // `DenyEdits::add` would build 10,000 sets: slow in a debug build
        };
        (0..EDITS_MAX as u32).for_each(push);
        let one_more = DenyEdit {
            network: "2001:db8::/32".parse().unwrap(),
            by: "test".into(),
            at: SystemTime::now(),
            until: None,
        };
        assert!(!edits.add(one_more, now));
    }
}
