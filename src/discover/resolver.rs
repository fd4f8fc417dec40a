//! The system's resolver, asked for many names at once.
//!
//! getaddrinfo(3) cannot be interrupted: a lookup keeps a thread and a socket until the system gives up. That takes 10
//! to 30 s if a name server drops the query (`timeout` and `attempts` of resolv.conf(5)). Three bounds limit how
//! long names without an answer delay others, and how many queries a name server gets at once:
//!
//! - The resolver's capacity (see [`crate::descriptors`]) is the most lookups that run at once. A lookup without an
//!   answer counts until the system gives up.
//! - A name is slow if its last lookup was not prompt ([`PROMPT`]). Slow names wait in a queue of their own, and may
//!   use at most half of the capacity.
//! - Of the lookups of other names that are still awaited, at most [`STARTING_MAX`] at once are in their first second.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dns_lookup::{AddrFamily, AddrInfoHints, SockType, getaddrinfo};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::addr::IpFamily;
use crate::capacity::Capacity;

/// How many lookups of names that are not slow may be in their first second at once. Each may be two queries; a small
/// forwarder refuses the 151st query (`dns-forward-max` of dnsmasq).
const STARTING_MAX: usize = 32;

/// The longest time that a prompt answer takes.
const PROMPT: Duration = Duration::from_secs(1);

/// Finds the addresses of a host, and adds the port to each; it may block.
type LookupFn = dyn Fn(&str, u16, IpFamily) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The result of a lookup.
pub(super) struct LookupResult {
    /// The addresses, in any order.
    pub(super) addresses: io::Result<Vec<SocketAddr>>,
    /// Whether it took no longer than [`PROMPT`].
    pub(super) is_prompt: bool,
}

/// Resolves host names for all pools.
pub struct Resolver {
    /// For lookups in their first second, except those of slow names.
    starting: Arc<Semaphore>,
    capacity: Arc<Capacity>,
    /// The part of the capacity that is open to slow names.
    slow_capacity: Arc<Capacity>,
    lookup: Arc<LookupFn>,
}

impl Resolver {
    /// The system's resolver, with a capacity of `capacity` lookups at once.
    #[must_use]
    pub fn system(capacity: usize) -> Self {
        Self::new(capacity, getaddrinfo_at_port)
    }

    pub(super) fn new(
        capacity: usize,
        lookup: impl Fn(&str, u16, IpFamily) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            starting: Arc::new(Semaphore::new(STARTING_MAX)),
            capacity: Capacity::new(Some(capacity)),
            slow_capacity: Capacity::new(Some(half(capacity))),
            lookup: Arc::new(lookup),
        }
    }

    /// Changes the capacity, which must be at least one. To be called within a runtime.
    pub fn resize(&self, capacity: usize) {
        self.capacity.resize(Some(capacity));
        self.slow_capacity.resize(Some(half(capacity)));
    }

    /// Looks up the addresses of a host. `was_prompt`: the last lookup of this name was prompt, or there was none.
    /// Dropping the future cancels the lookup while it waits to begin; once it has begun, its thread goes on.
    pub(super) fn resolve(
        &self,
        host: &str,
        port: u16,
        family: IpFamily,
        was_prompt: bool,
    ) -> impl Future<Output = LookupResult> + Send + use<> {
        let (starting, capacity, slow_capacity) = (&self.starting, &self.capacity, &self.slow_capacity);
        let (starting, capacity, slow_capacity) =
            (Arc::clone(starting), Arc::clone(capacity), Arc::clone(slow_capacity));
        let (lookup, host) = (Arc::clone(&self.lookup), host.to_owned());
        async move {
            let (start_permit, slow_permit) = if was_prompt {
                let permit = starting.acquire().await.expect("this semaphore is never closed");
                (Some(permit), None)
            } else {
                (None, Some(slow_capacity.acquire().await))
            };
            let permit = capacity.acquire().await;
            let mut lookup = pin!(spawn_blocking(move || {
                let _permits = (permit, slow_permit); // until the thread ends, even if the future is dropped
                lookup(&host, port, family)
            }));
            let prompt = timeout(PROMPT, &mut lookup).await;
            drop(start_permit);
            let is_prompt = prompt.is_ok();
            let addresses = match prompt {
                Ok(addresses) => addresses,
                Err(_) => lookup.await,
            };
            LookupResult {
                addresses: addresses.unwrap_or_else(|panicked| Err(io::Error::other(panicked))),
                is_prompt,
            }
        }
    }
}

/// Half of the capacity, but at least one.
const fn half(capacity: usize) -> usize {
    if capacity > 1 { capacity / 2 } else { 1 }
}

/// getaddrinfo(3) obeys nsswitch.conf(5), hosts(5) and resolv.conf(5).
fn getaddrinfo_at_port(host: &str, port: u16, family: IpFamily) -> io::Result<Vec<SocketAddr>> {
    let hints = AddrInfoHints {
        address: match family {
            IpFamily::Both => 0, // AF_UNSPEC
            IpFamily::V4 => AddrFamily::Inet.into(),
            IpFamily::V6 => AddrFamily::Inet6.into(),
        },
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let at_port = |mut address: SocketAddr| {
        address.set_port(port);
        address
    };
    let addresses = getaddrinfo(Some(host), None, Some(hints))?;
    addresses.map(|info| info.map(|info| at_port(info.sockaddr))).collect()
}
