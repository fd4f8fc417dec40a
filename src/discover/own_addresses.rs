//! Follows the addresses of this machine: where one comes or goes, such as a virtual address that moves between two machines, a
//! server may become one of our listeners, or no longer be one.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::time::sleep;

use crate::live::Live;
use crate::local_addresses::LocalAddressWatch;
use crate::optional::OptionalCall;

static WATCH: OptionalCall = OptionalCall::new(
    "netlink(RTMGRP_IPV4_ROUTE)",
    "an address that comes to this machine is noticed up to 10 s later",
);

/// The time between two looks where changes are not reported.
const INTERVAL: Duration = Duration::from_secs(10);

/// Follows the addresses. Never returns.
pub(super) async fn follow(live: &Live) {
    loop {
        let Err(error) = follow_reports(live).await;
        WATCH.record_failure(&error);
        live.follow_local_addresses();
        sleep(INTERVAL).await;
    }
}

async fn follow_reports(live: &Live) -> io::Result<Infallible> {
    let mut watch = LocalAddressWatch::open()?;
    loop {
        live.follow_local_addresses();
        watch.changed().await?;
    }
}
