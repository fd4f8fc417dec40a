//! Tells a task when to look at the servers of all pools again: after a change, or at a given time.

use std::time::Duration;

use parking_lot::MutexGuard;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Live;

/// The shortest time from one look to the next, because a look at thousands of servers costs time.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How long to wait after a change, so that related changes are reported with it: a check that makes another server the
/// primary stores several changes, and so does a reload.
const SETTLE: Duration = Duration::from_millis(20);

/// Wakes a task when it is to look at the servers again, so that it sleeps while nothing changes.
#[derive(Debug)]
pub struct ChangeWatch {
    changed: watch::Receiver<()>,
    /// When [`Self::next`] last returned; at first, when the watch was created.
    examined_at: Instant,
}

impl ChangeWatch {
    fn new(changed: watch::Receiver<()>) -> Self {
        Self {
            changed,
            examined_at: Instant::now(),
        }
    }

    /// Waits for a change, or until `due`. Returns whether there was a change since the previous call returned, or,
    /// at the first call, since the watch was created. Returns at most once in [`INTERVAL_MIN`], and within that time
    /// after a change.
    ///
    /// If the future is dropped, the next call reports the change.
    pub async fn next(&mut self, due: Option<Instant>) -> bool {
        let not_before = self.examined_at + INTERVAL_MIN;
        let has_changed = select! {
            biased;
            result = self.changed.changed() => {
                result.expect("what is in force lives as long as those who follow it");
                self.changed.mark_changed(); // so that the change is not lost if the future is dropped in the sleep
                sleep_until(not_before.max(Instant::now() + SETTLE)).await;
                self.changed.mark_unchanged();
                true
            }
            // `select!` evaluates `sleep_until(..)` even if `due` is `None`.
            () = sleep_until(due.unwrap_or(not_before).max(not_before)), if due.is_some() => false,
        };
        self.examined_at = Instant::now();
        has_changed
    }
}

impl Live {
    /// Reports changes of what is in force, and of the states of servers.
    #[must_use]
    pub fn changes(&self) -> ChangeWatch {
        ChangeWatch::new(self.registry.subscribe())
    }

    /// Keeps other tasks from changing what is in force while the returned lock lives. Readers do not wait.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::SystemTime;

    use tokio::time::timeout;

    use super::*;
    use crate::addr::{ClientAddr, ServerAddr};
    use crate::live::NameAddresses;
    use crate::plan::{Lister, Plan};
    use crate::pool::{CheckOutcome, Override, ServerFailure, Thresholds};

    const FOR_LONG: Duration = Duration::from_secs(3600);

    fn plan(servers: &str) -> Plan {
        let text = format!("[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [{servers}]");
        crate::config::read("a.toml", &text).ok().unwrap().plan
    }

    #[tokio::test(start_paused = true)]
    async fn every_change_is_reported_within_the_interval() {
        let live = Live::new(plan("\"10.0.0.1:1\", \"10.0.0.2:1\", \"a.test:1\""), Vec::new());
        let pool = || Arc::clone(live.in_force().pool("p").unwrap());
        let thresholds = Thresholds { rise: 1, fall: 1 };
        let check = |outcome: &CheckOutcome| {
            pool().servers()[0].record_check(outcome, thresholds);
        };
        let path = |name: &str| ("p".into(), name.into());
        let set_override =
            |name, change| drop(live.apply_override(&path(name), change, "me".into(), SystemTime::now()));
        let address = ServerAddr::new(([10, 0, 0, 3], 1).into());
        let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
        let fail = || {
            let lease = pool()
                .pick(client, &[pool().servers()[0].id()], Instant::now())
                .unwrap();
            while !lease.server().is_ejected() {
                let _ = pool().record_failure(&lease, &[lease.server().id()], ServerFailure::Connect, Instant::now());
            }
        };
        let changes: [(&str, &dyn Fn()); 8] = [
            ("a check", &|| check(&CheckOutcome::Pass)),
            ("an ejection", &fail),
            ("a failed check", &|| check(&CheckOutcome::Fail("gone".into()))),
            ("a weight", &|| set_override("10.0.0.2:1", Override::Weight(Some(0)))),
            ("an operator's change of a server that is in no pool", &|| {
                set_override("none", Override::Disable { close_over: None })
            }),
            ("a lookup", &|| {
                live.set_addresses("p", NameAddresses::from([("a.test:1".into(), vec![address])]))
            }),
            ("a reload", &|| {
                drop(live.apply(live.prepare(plan("\"10.0.0.1:1\""), HashMap::new())))
            }),
            ("a stand-in", &|| pool().servers()[0].set_stand_in(true)),
        ];
        let mut watch = live.changes();
        for (name, change) in changes {
            let reported_before = timeout(FOR_LONG, watch.next(None)).await;
            assert!(reported_before.is_err(), "nothing is reported before {name}");
            change();
            assert!(timeout(INTERVAL_MIN, watch.next(None)).await.expect(name), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_identical_server_list_is_no_change() {
        let text =
            "[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\ndiscover = { file = \"/run/servers.json\" }";
        let live = Live::new(crate::config::read("a.toml", text).ok().unwrap().plan, Vec::new());
        let list = || {
            let entries = plan("\"10.0.0.1:1\"").pool("p").unwrap().entries.to_vec();
            live.set_servers("p", Lister::Source, entries)
        };
        let mut watch = live.changes();
        assert!(list().is_some());
        assert!(watch.next(None).await);
        assert!(list().is_none());
        assert!(timeout(FOR_LONG, watch.next(None)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn frequent_changes_are_reported_at_intervals() {
        let live = Live::new(plan("\"10.0.0.1:1\""), Vec::new());
        let (mut watch, began) = (live.changes(), Instant::now());
        for count in 1..=10 {
            live.registry.notify_change();
            let dropped = timeout(SETTLE / 2, watch.next(None)).await;
            assert!(dropped.is_err(), "it is reported later");
            live.registry.notify_change();
            assert!(watch.next(None).await);
            assert_eq!(began.elapsed(), count * INTERVAL_MIN);
        }
        assert!(!watch.next(Some(Instant::now())).await, "only the time has come");
        assert_eq!(began.elapsed(), 11 * INTERVAL_MIN);
    }
}
