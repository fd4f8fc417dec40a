//! What became of the configuration's texts, written to the store beside them: a key for each instance, deleted after the
//! instance is gone.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::state::{RemoteConfig, RemoteState};
use crate::back_off::BackOff;
use crate::error::chain;
use crate::etcd::{EtcdError, EtcdKeyValue, LeaseId, Members};
use crate::plan::RemotePlan;

/// How long the status of an instance stays in the store after the instance has died.
const LEASE: Duration = Duration::from_secs(60);

/// After this many failures in a row, one is reported: the first may only mean that a login has expired.
const REPORTED_FAILURES: u32 = 2;

/// Writes the status whenever it changes. Never returns.
pub(super) async fn write(plan: &RemotePlan, config: &RemoteConfig) -> Infallible {
    let mut members = Members::new(plan.etcd.clone());
    let mut states = config.subscribe();
    let mut back_off = BackOff::default();
    let (mut failures, mut is_reported) = (0_u32, false);
    loop {
        let written = || {
            if is_reported {
                tracing::info!(key = plan.status_key(), "the status is written to the store again");
            }
            (failures, is_reported) = (0, false);
            back_off.reset();
        };
        let Err(error) = write_while_possible(plan, config, &mut members, &mut states, written).await;
        failures = failures.saturating_add(1);
        // If the store does not answer, its follower logs that.
        if failures == REPORTED_FAILURES && config.state().lost.is_none() {
            is_reported = true;
            let (key, error) = (plan.status_key(), chain(&*error));
            tracing::warn!(key, error, "cannot write the status to the store");
        }
        back_off.pause().await;
    }
}

/// Writes the status whenever it changes, until a write fails. Calls `written` after each write.
async fn write_while_possible(
    plan: &RemotePlan,
    config: &RemoteConfig,
    members: &mut Members,
    states: &mut watch::Receiver<RemoteState>,
    mut written: impl FnMut(),
) -> Result<Infallible, EtcdError> {
    let gateway = members.connect().await?;
    let lease = gateway.grant(LEASE).await?;
    let mut last = None;
    loop {
        let status = status(plan, &states.borrow_and_update());
        if last.as_ref() != Some(&status) {
            gateway
                .put(&plan.status_key(), status.to_string().as_bytes(), &lease)
                .await?;
            last = Some(status);
            written();
        }
        tokio::select! {
            changed = states.changed() => changed?,
            () = sleep(LEASE / 3) => {
                gateway.keep_alive(&lease).await?;
                // A user may be permitted to write its status, and not to read it.
                if let Ok(written) = gateway.get(&plan.status_key()).await
                    && is_overwritten(plan, config, &lease, written.as_ref())
                {
                    last = None; // write it again
                }
            }
        }
    }
}

/// Whether our status is no longer there. Logs when another process that runs has begun to write its own in its place, and when
/// that is over: what has ended cannot write after us.
fn is_overwritten(plan: &RemotePlan, config: &RemoteConfig, lease: &LeaseId, written: Option<&EtcdKeyValue>) -> bool {
    let is_ours = |written: &EtcdKeyValue| lease.holds(written);
    let has_rival = written.is_some_and(|written| !is_ours(written));
    if config.set_rival(has_rival) {
        let (key, instance) = (plan.status_key(), &plan.instance);
        match has_rival {
            true => {
                tracing::warn!(key, %instance, "another process writes its status with our name: give each its own `instance` in `[remote]`")
            }
            false => tracing::info!(key, %instance, "no other process writes its status with our name any more"),
        }
    }
    !written.is_some_and(is_ours)
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
