//! The harness of the black-box tests: the built binary with real peers around it.
//!
//! Nothing here binds a port of its choice or sleeps for something to happen: ports are the system's, and
//! [`eventually`] polls for a condition within a bound.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

pub mod api;
pub mod client;
pub mod database;
pub mod dns;
pub mod hard;
pub mod hello;
pub mod metrics;
pub mod process;
pub mod proxy;
pub mod server;
pub mod star;
pub mod tls;

use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take that is bound to happen; generous, for the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

/// Waits until it holds.
///
/// # Panics
/// It does not hold within [`PATIENCE`].
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    found(what, || holds().then_some(()));
}

/// Waits until there is one.
///
/// # Panics
/// There is none within [`PATIENCE`].
pub fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(POLL);
    }
}
