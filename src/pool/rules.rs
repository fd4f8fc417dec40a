//! How a pool picks and ejects servers.

use std::time::Duration;

use super::EjectLimits;

/// The rule by which a pool picks a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The lowest (live sessions + 1) / weight.
    LeastConn,
    /// Weighted rendezvous hashing of the client's address.
    SourceHash,
    /// Weighted turns, evenly spread.
    RoundRobin,
    /// The less loaded of two servers drawn at random.
    RandomTwo,
}

impl Policy {
    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeastConn => "least-conn",
            Self::SourceHash => "source-hash",
            Self::RoundRobin => "round-robin",
            Self::RandomTwo => "random-two",
        }
    }

    /// Whether it picks by the client: the same client gets the same server as long as the candidates stay the same.
    #[must_use]
    pub const fn is_by_client(self) -> bool {
        matches!(self, Self::SourceHash)
    }
}

/// How many clients may wait for a server of a pool, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// The most clients that wait at the same time; at least 1.
    pub clients_max: usize,
    /// How long one client may wait.
    pub timeout: Duration,
}

/// How a pool picks and ejects its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRules {
    /// The rule by which a server is picked.
    pub policy: Policy,
    /// When failures eject a server.
    pub eject: EjectLimits,
    /// The longest time that a connect takes. If the session that tries an ejected server has not reported a result
    /// after this time, another session may try the server.
    pub connect_timeout: Duration,
    /// The time in which the weight of a server that came back grows to its full value; `None`: at once.
    pub slow_start: Option<Duration>,
    /// The pool panics if less than this percentage (1 to 100) of the servers in service in the tier in use is healthy:
    /// then it also picks other servers of that tier, except those that are unfit or suspended. `None`: it never
    /// panics. In service:
    /// [`Member::is_in_service`](super::Member::is_in_service).
    pub panic_threshold: Option<u8>,
    /// The limits of the queue for a server with room; `None`: there is no queue.
    pub queue: Option<QueueLimits>,
    /// How long a client may wait while no server is usable, in a pool that may sleep (`min` of `scale` is 0); `None`:
    /// the pool never sleeps.
    pub wake: Option<Duration>,
    /// Whether clients in the queue also wait for a server that is ejected or suspended, but neither down nor of the
    /// wrong role. Set for a pool that has a `queue`, has no fallback and never sleeps.
    pub waits_for_return: bool,
}
