//! Tells the service manager (systemd) that the process is ready, reloads or stops, and that its workers run. The
//! messages are those of sd_notify(3). Without a service manager nothing is sent.
//!
//! A message is one datagram to a local socket. Sending blocks only while the service manager itself hangs; workers
//! never send a message.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Weak;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::units::format_duration;
use crate::worker::Heartbeat;

/// The shortest interval between two checks of the heartbeats. A worker counts a beat each second.
const CHECK_INTERVAL_MIN: Duration = Duration::from_secs(2);

/// Reports, at the start and after a reload, that clients are accepted. `status` is shown by `systemctl status`.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that a reload has begun. [`ready`] must follow, whether the reload succeeds or not; or [`stopping`], if the
/// process ends meanwhile.
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

/// Feeds the watchdog of the service manager, if it has one for this process, as long as every worker's event loop
/// runs. If a worker is stuck the watchdog is not fed, so that the service manager restarts the process. A worker that
/// has ended is not stuck: it drops its heartbeat.
pub(super) async fn feed_watchdog(heartbeats: Vec<Weak<Heartbeat>>) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return;
    };
    if limit < 2 * CHECK_INTERVAL_MIN {
        let (limit, min) = (format_duration(limit), format_duration(2 * CHECK_INTERVAL_MIN));
        tracing::warn!(limit, min, "the watchdog may end a healthy process: raise WatchdogSec");
    }
    // Half the limit, so that a check may be late.
    let mut checks = interval((limit / 2).max(CHECK_INTERVAL_MIN));
    // After a late check, the next must not follow at once: no worker could have counted a beat in between.
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    checks.tick().await;
    send(&[NotifyState::Watchdog]);
    let mut before = counts(&heartbeats);
    loop {
        checks.tick().await;
        let now = counts(&heartbeats);
        match stuck_worker(&before, &now) {
            None => send(&[NotifyState::Watchdog]),
            Some(worker) => tracing::error!(
                worker,
                limit = format_duration(limit),
                "a worker is stuck: the watchdog is not fed"
            ),
        }
        before = now;
    }
}

/// The number of beats of each worker; `None`: it has ended.
fn counts(heartbeats: &[Weak<Heartbeat>]) -> Vec<Option<u64>> {
    let count = |heartbeat: &Weak<Heartbeat>| Some(heartbeat.upgrade()?.count());
    heartbeats.iter().map(count).collect()
}

/// The number of the first worker that has not counted a beat between two checks, although it has not ended.
fn stuck_worker(before: &[Option<u64>], now: &[Option<u64>]) -> Option<usize> {
    before
        .iter()
        .zip(now)
        .position(|(before, now)| now.is_some() && before == now)
}

fn send(states: &[NotifyState<'_>]) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let sent = address(&name).and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, socket = %name.display(), "cannot notify the service manager");
    }
}

/// The address of the service manager: a path, or `@` and a name in the abstract namespace. `sd_notify::notify` takes
/// only paths.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_worker_without_a_beat_between_two_checks_is_stuck_unless_it_has_ended() {
        let [first, second] = [Arc::<Heartbeat>::default(), Arc::default()];
        let heartbeats = [&first, &second].map(Arc::downgrade);
        let before = counts(&heartbeats);
        first.beat();
        assert_eq!(stuck_worker(&before, &counts(&heartbeats)), Some(1));
        drop(second);
        assert_eq!(stuck_worker(&before, &counts(&heartbeats)), None);
        let before = counts(&heartbeats);
        assert_eq!(stuck_worker(&before, &counts(&heartbeats)), Some(0));
        drop(first);
        assert_eq!(stuck_worker(&before, &counts(&heartbeats)), None);
    }
}
