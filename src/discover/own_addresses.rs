//! Follows the addresses of this machine: where one comes or goes, such as a virtual address that moves between two
//! machines, a server may become one of our listeners, or no longer be one.

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
    "until it succeeds, a server at a new address of this machine is not recognised as a listener of ours at all addresses",
);

/// The time between two reads where changes are not reported, or the addresses could not be read.
const INTERVAL: Duration = Duration::from_secs(10);

/// The least time from one read to the next: often many addresses come at once. After a quiet time, the first change
/// causes a read without delay: until then, a session to this machine may open another one, and so on, up to the limit.
const PAUSE: Duration = Duration::from_millis(10);

/// Follows the addresses. Never returns.
pub(super) async fn follow(live: &Live) {
    loop {
        let Err(error) = follow_reports(live).await;
        if refresh(live).await {
            WATCH.record_failure(&error);
        }
        sleep(INTERVAL).await;
    }
}

async fn follow_reports(live: &Live) -> io::Result<Infallible> {
    loop {
        // A new watch: this read includes what the one before has not reported yet.
        let mut watch = LocalAddressWatch::open()?;
        let is_fresh = refresh(live).await;
        let paused = Instant::now() + PAUSE;
        tokio::select! {
            changed = watch.changed() => changed?,
            () = sleep(INTERVAL), if !is_fresh => {}
        }
        sleep_until(paused).await;
    }
}

/// Reads the addresses. If that fails, those of before stay in force. Returns whether it succeeded.
async fn refresh(live: &Live) -> bool {
    let addresses = blocking(LocalAddresses::read).await;
    READ.try_result(addresses.map(|addresses| live.set_local_addresses(addresses)))
}
