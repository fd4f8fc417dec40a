//! The harness of the black-box tests: the built binary with real clients and servers.
//!
//! The system chooses every port, and nothing sleeps to wait for an event: [`eventually`] polls for a condition within
//! a bound.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

pub mod api;
pub mod client;
pub mod configs;
pub mod counts;
pub mod database;
pub mod dns;
pub mod hello;
pub mod limits;
pub mod metrics;
pub mod namespaces;
pub mod process;
pub mod proxy;
pub mod queue;
pub mod seccomp;
pub mod server;
pub mod stop;
pub mod stream;
pub mod tls;
pub mod usage;

/// Former names, kept while tests move to the new ones.
pub mod hard {
    #![allow(unused_imports, reason = "former names")]
    use super::client::Client;
    pub use super::client::{
        assert_echoes as echoes, run_sessions as sessions, served_client as is_served,
        small_buffer_client as narrow_client,
    };
    pub use super::configs::two_listeners;
    pub use super::counts::{
        active_sessions as active, ended_sessions as ended, log_count as said,
        wait_for_active_sessions as active_becomes, wait_for_ended_sessions as ended_becomes,
    };
    pub use super::limits::{
        descriptor_limits as limits_of, leave_descriptors, limit_descriptors,
        raise_descriptor_limit as many_descriptors,
    };
    pub use super::queue::{serve_in_turn, take_answered, waiting_clients as askers};
    pub use super::server::ManualServer as Hand;
    pub use super::stop::StopOnDrop as StopAtEnd;
    pub use super::stream::{fill, read_to_end, reset};
    pub use super::usage::{
        cpu_time as cpu, cpu_time_over as cpu_over, descriptors, descriptors_fall_to, pipes,
        resident_bytes as resident, tcp_sockets as sockets,
    };

    impl Client {
        pub fn hear(&mut self) -> String {
            self.read_some()
        }
    }
}

/// Former name.
pub mod star {
    #![allow(unused_imports, reason = "former name")]
    pub use super::namespaces::Namespaces as Star;
}

#[allow(unused_imports, reason = "former name")]
pub use self::wait_for as found;

use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

/// How long a test waits for anything. Generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

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
