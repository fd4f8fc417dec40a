//! Follows the addresses of this machine. When an address comes or goes, a server at that address may become one of our
//! own listeners, or stop being one of them. An example is a virtual address that moves between two machines.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::blocking::blocking;
use crate::live::Live;
use crate::local_addresses::{LocalAddressWatch, LocalAddresses};
use crate::optional::OptionalCall;

static WATCH: OptionalCall = OptionalCall::new(
    "netlink(RTMGRP_IPV4_ROUTE)",
    "an address that comes to this machine is noticed up to 10 s later",
);

static READ: OptionalCall = OptionalCall::new(
    "netlink(RTM_GETROUTE)",
    "until it succeeds, a server at a new address of this machine is not recognised as our own listener on 0.0.0.0 or [::]",
);

/// The time between two reads if the system does not report changes, or if the addresses could not be read.
const INTERVAL: Duration = Duration::from_secs(10);

/// The least time from one read to the next: often many addresses come at once. The first change after a quiet time is
/// read without delay, because before that read a session may lead back to its own listener, and so open another
/// session, and so on, up to the limit of sessions.
const PAUSE: Duration = Duration::from_millis(10);

/// Follows the addresses. Never returns.
pub(super) async fn follow(live: &Live) {
    loop {
        let Err(error) = follow_reports(live).await;
        // If the read fails too, `refresh` logs it, and the text of `WATCH` (up to 10 s later) would be wrong.
        if refresh(live).await {
            WATCH.record_failure(&error);
        }
        sleep(INTERVAL).await;
    }
}

async fn follow_reports(live: &Live) -> io::Result<Infallible> {
    loop {
        // Each read has a new watch: the read includes all changes before it, and the watch reports those after.
        let mut watch = LocalAddressWatch::open()?;
        let is_fresh = refresh(live).await;
        let next_read = Instant::now() + PAUSE;
        tokio::select! {
            changed = watch.changed() => changed?,
            () = sleep(INTERVAL), if !is_fresh => {}
        }
        sleep_until(next_read).await;
    }
}

/// Reads the addresses. If that fails, the addresses read before stay in force. Returns whether it succeeded.
async fn refresh(live: &Live) -> bool {
    let addresses = blocking(LocalAddresses::read).await;
    READ.record_result(addresses.map(|addresses| live.set_local_addresses(addresses)))
}
