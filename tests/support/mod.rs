//! The harness of the black-box tests: the built binary with real clients and servers.
//!
//! The system chooses every port but those of [`ports`], port 53 of name servers, and ports in network namespaces of
//! tests. A test that waits for an event polls for it ([`eventually`]), or reads with a time limit; it does not sleep
//! for a fixed time.

#![allow(dead_code, unreachable_pub, reason = "each test program uses only a part")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

pub mod api;
pub mod authority;
pub mod browser;
pub mod client;
pub mod configs;
pub mod counts;
pub mod database;
pub mod dns;
pub mod docker;
pub mod etcd;
pub mod hello;
pub mod kubernetes;
pub mod limits;
pub mod mariadb;
pub mod metrics;
pub mod namespaces;
pub mod nginx;
pub mod nsd;
pub mod path;
pub mod pebble;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod queue;
pub mod renewal_info;
pub mod seccomp;
pub mod sentinel;
pub mod server;
pub mod stop;
pub mod stream;
pub mod tls;
pub mod tls_client;
pub mod tls_peer;
pub mod tls_server;
pub mod tmux;
pub mod usage;

use std::thread::sleep;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::time::Instant;

/// How long a test waits for an event, unless it says otherwise. Generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

/// Whether the test runs as root. If not, a note on standard error says that `what` is not tested.
pub fn is_root_for(what: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("NOT TESTED: {what} needs root");
    }
    is_root
}

/// Waits until the condition holds; `what` says in words what is expected.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// Waits until `look` returns a value, and returns that; `what` says in words what is expected.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "expected within {PATIENCE:?}: {what}");
        sleep(POLL);
    }
}
