//! The status of an instance, written to the store beside the texts of the configuration: which texts are in force, and
//! why the last ones were refused. Each instance has a key of its own, which is deleted after the instance is gone.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::state::{RemoteConfig, RemoteState};
use crate::back_off::BackOff;
use crate::error::chain;
use crate::etcd::{EtcdError, EtcdKeyValue, LeaseId, Members};
use crate::plan::RemotePlan;

/// How long the status of an instance stays in the store after the instance has renewed its lease for the last time.
const LEASE: Duration = Duration::from_secs(60);

/// The time between two looks at our status in the store. With each look the lease is renewed.
const LOOK_GAP: Duration = Duration::from_secs(LEASE.as_secs() / 3);

/// After this many looks in a row that have found our status, another process with our name counts as gone.
const QUIET_LOOKS: u32 = 2;

/// A failure is reported once there are this many in a row: the first may only mean that a login has expired.
const REPORT_AFTER_FAILURES: u32 = 2;

/// Writes the status whenever it changes. Never returns.
pub(super) async fn write(plan: &RemotePlan, config: &RemoteConfig) -> Infallible {
    let mut members = Members::new(plan.etcd.clone());
    let mut states = config.subscribe();
    let mut back_off = BackOff::default();
    let mut failures = Failures::default();
    config.set_namesake(false); // unknown until the first look
    loop {
        let on_write = || {
            if std::mem::take(&mut failures).is_reported {
                tracing::info!(key = plan.status_key(), "the status is written to the store again");
            }
            back_off.reset();
        };
        let Err(error) = write_while_possible(plan, config, &mut members, &mut states, on_write).await;
        if failures.add(config.state().lost.is_some()) {
            let (key, error) = (plan.status_key(), chain(&*error));
            tracing::warn!(key, error, "cannot write the status to the store");
        }
        back_off.pause().await;
    }
}

/// Failures in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    is_reported: bool,
}

impl Failures {
    /// Counts a failure. Returns whether to report it. While the store is lost, nothing is reported here, because the
    /// follower of the texts reports that loss.
    fn add(&mut self, is_store_lost: bool) -> bool {
        self.count = self.count.saturating_add(1);
        let is_to_report = self.count >= REPORT_AFTER_FAILURES && !self.is_reported && !is_store_lost;
        self.is_reported |= is_to_report;
        is_to_report
    }
}

/// Writes the status whenever it changes, until connecting, the grant of a lease, its renewal or a write fails. Calls
/// `on_write` after each write.
async fn write_while_possible(
    plan: &RemotePlan,
    config: &RemoteConfig,
    members: &mut Members,
    states: &mut watch::Receiver<RemoteState>,
    mut on_write: impl FnMut(),
) -> Result<Infallible, EtcdError> {
    let gateway = members.connect().await?;
    let lease = gateway.grant(LEASE).await?;
    let (mut last, mut own) = (None, OwnStatus::default());
    let mut looks = interval_at(Instant::now() + LOOK_GAP, LOOK_GAP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let status = status(plan, &states.borrow_and_update());
        if last.as_ref() != Some(&status) {
            gateway
                .put(&plan.status_key(), status.to_string().as_bytes(), &lease)
                .await?;
            last = Some(status);
            own.record_write();
            on_write();
        }
        tokio::select! {
            changed = states.changed() => changed?,
            _ = looks.tick() => {
                gateway.keep_alive(&lease).await?;
                // If this look fails, for example by a timeout, the result of the previous look stays. If etcd permits
                // us to write the status but not to read it, a namesake is never found.
                if let Ok(found) = gateway.get(&plan.status_key()).await {
                    let found = StatusFound::new(found.as_ref(), &lease);
                    record_namesake(plan, config, own.has_namesake(found, config.state().has_namesake));
                    if found != StatusFound::Own {
                        last = None; // write it again
                    }
                }
            }
        }
    }
}

/// What is found in the store at the key of our status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusFound {
    Own,
    /// The status of another process, which has written it after us.
    Other,
    Nothing,
}

impl StatusFound {
    fn new(status: Option<&EtcdKeyValue>, lease: &LeaseId) -> Self {
        match status {
            None => Self::Nothing,
            Some(status) if lease.holds(status) => Self::Own,
            Some(_) => Self::Other,
        }
    }
}

/// Finds out from our status in the store whether a namesake runs: another process that writes its status to the same
/// key. A namesake looks as often as we do, and writes again if it finds our status.
#[derive(Debug, Default)]
struct OwnStatus {
    /// How many looks in a row have found our status since we have written it.
    looks: u32,
}

impl OwnStatus {
    fn record_write(&mut self) {
        self.looks = 0;
    }

    /// Whether there is a namesake after this look. `had_namesake`: whether there was one after the previous look.
    fn has_namesake(&mut self, found: StatusFound, had_namesake: bool) -> bool {
        self.looks = match found {
            StatusFound::Own => self.looks.saturating_add(1),
            StatusFound::Other | StatusFound::Nothing => 0,
        };
        match found {
            StatusFound::Other => true,
            // At our first look after a write, the namesake may not have looked since that write.
            StatusFound::Own => had_namesake && self.looks < QUIET_LOOKS,
            StatusFound::Nothing => false,
        }
    }
}

/// Records whether another process writes its status with our name. Logs when that begins, and when it is over.
fn record_namesake(plan: &RemotePlan, config: &RemoteConfig, has_namesake: bool) {
    if config.set_namesake(has_namesake) {
        let (key, instance) = (plan.status_key(), &plan.instance);
        match has_namesake {
            true => {
                tracing::warn!(key, %instance, "another process writes its status with our name: give each its own `instance` in `[remote]`")
            }
            false => tracing::info!(key, %instance, "no other process writes its status with our name any more"),
        }
    }
}

fn status(plan: &RemotePlan, state: &RemoteState) -> Value {
    let time = |at: SystemTime| humantime::format_rfc3339_millis(at).to_string();
    let in_force = state.in_force.as_ref().map(
        |texts| json!({ "revision": texts.version.revision, "keys": texts.version.keys, "since": time(texts.since) }),
    );
    let error = state.refused.as_ref().map(|refused| {
        json!({
            "revision": refused.version.map(|version| version.revision),
            "keys": refused.version.map(|version| version.keys),
            "since": time(refused.since),
            "message": &*refused.message,
        })
    });
    json!({
        "instance": &*plan.instance,
        "acequia": env!("CARGO_PKG_VERSION"),
        "in_force": in_force,
        "error": error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_reported_once_and_not_while_the_store_is_lost() {
        let mut failures = Failures::default();
        let reported = [false, true, false, false].map(|is_lost| failures.add(is_lost));
        assert_eq!(reported, [false, false, true, false]);
    }

    #[test]
    fn a_namesake_is_gone_after_two_looks_that_find_our_status_or_one_that_finds_none() {
        let (mut own, mut has_namesake) = (OwnStatus::default(), false);
        let mut look = |own: &mut OwnStatus, found| {
            has_namesake = own.has_namesake(found, has_namesake);
            has_namesake
        };
        own.record_write();
        assert!(!look(&mut own, StatusFound::Own));
        assert!(look(&mut own, StatusFound::Other));
        own.record_write();
        assert!(look(&mut own, StatusFound::Own), "the other may not have looked yet");
        own.record_write(); // because our state has changed
        assert!(look(&mut own, StatusFound::Own), "the other may not have looked since");
        assert!(!look(&mut own, StatusFound::Own));
        assert!(look(&mut own, StatusFound::Other));
        assert!(!look(&mut own, StatusFound::Nothing), "its lease has ended");
    }
}
