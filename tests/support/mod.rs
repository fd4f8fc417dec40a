//! The harness of the black-box tests: the built binary with real peers around it.
//!
//! Nothing here binds a port of its choice or sleeps for something to happen: ports are the system's, and
//! [`eventually`] polls for a condition within a bound.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

pub mod api;
pub mod client;
pub mod configs;
pub mod counts;
pub mod database;
pub mod hello;
pub mod limits;
pub mod metrics;
pub mod namespaces;
pub mod process;
pub mod proxy;
pub mod queue;
pub mod server;
pub mod stop;
pub mod stream;
pub mod tls;
pub mod usage;

/// The former name of several of these files.
pub mod hard {
    #![allow(unused_imports, reason = "kept while tests move to the new paths")]
    pub use super::client::{echoes, is_served, narrow_client, sessions};
    pub use super::configs::*;
    pub use super::counts::*;
    pub use super::limits::*;
    pub use super::queue::*;
    pub use super::server::Hand;
    pub use super::stop::*;
    pub use super::stream::*;
    pub use super::usage::*;
}

/// The former name of `namespaces`.
pub mod star {
    #![allow(unused_imports, reason = "kept while tests move to the new paths")]
    pub use super::namespaces::*;
}

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
