//! What the service manager (systemd) is told: ready, reloading, stopping, and that the workers run. The messages are those
//! of sd_notify(3). Without a service manager nothing is sent.
//!
//! A message is one datagram to a local socket. It blocks only while the service manager itself hangs; workers never
//! send one.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::interval;

use crate::worker::Heartbeat;

/// The shortest time between two looks at the workers. They beat once a second.
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(2);

/// Reports that clients are accepted, at the start and after a reload. `status` is shown by `systemctl status`.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that a reload has begun. [`ready`] must follow, whether it succeeds or not.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "cannot read the monotonic clock"),
    }
}

/// Reports that the process is about to end.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Feeds the watchdog of the service manager, if it has one for this process, as long as every worker beats. A worker that
/// is stuck stops the feeding, so that the service manager restarts the process.
pub(super) async fn feed_watchdog(heartbeats: Vec<Arc<Heartbeat>>) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return;
    };
    // Two looks within the limit: one may be late.
    let mut looks = interval((limit / 2).max(LOOK_INTERVAL_MIN));
    looks.tick().await;
    send(&[NotifyState::Watchdog]);
    let mut before = counts(&heartbeats);
    loop {
        looks.tick().await;
        let now = counts(&heartbeats);
        match stuck(&before, &now) {
            None => send(&[NotifyState::Watchdog]),
            Some(worker) => tracing::error!(worker, ?limit, "a worker is stuck: the watchdog is not fed"),
        }
        before = now;
    }
}

fn counts(heartbeats: &[Arc<Heartbeat>]) -> Vec<u64> {
    heartbeats.iter().map(|heartbeat| heartbeat.count()).collect()
}

/// The number of the first worker that has not beaten between two looks.
fn stuck(before: &[u64], now: &[u64]) -> Option<usize> {
    before.iter().zip(now).position(|(before, now)| before == now)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_has_not_beaten_between_two_looks_is_stuck() {
        assert_eq!(stuck(&[3, 7], &[4, 8]), None);
        assert_eq!(stuck(&[3, 7], &[4, 7]), Some(1));
        assert_eq!(stuck(&[], &[]), None);
    }
}
