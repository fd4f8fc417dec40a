//! The system's resolver, asked for many names at once.
//!
//! getaddrinfo(3) cannot be interrupted: a lookup keeps a thread and a socket until the system gives up. That takes 10
//! to 30 s if a name server drops the query (`timeout` and `attempts` of resolv.conf(5)). Three bounds limit how
//! long names without an answer delay others, and how many queries a name server gets at once:
//!
//! - At most [`STARTING_MAX`] lookups at once are in their first second ([`PROMPT`]), except those of slow names.
//! - At most as many as the resolver's capacity (see [`crate::descriptors`]) run at once, including those without an
//!   answer.
//! - New names and slow names ([`LastLookup`]) each wait in a queue of their own. New names may use at most half of the
//!   capacity, and slow names a quarter. The rest is left to names that are known to be prompt: however many names a
//!   reload adds, these are still refreshed.

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

/// How many lookups may be in their first second at once, without those of slow names. Each may be two queries; a small
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
    /// What it was like, for the next one.
    pub(super) kind: LastLookup,
}

/// What the last lookup of a name was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLookup {
    /// The name is new: there was no lookup.
    Never,
    /// It took no longer than [`PROMPT`].
    Prompt,
    /// It took longer.
    Slow,
}

/// Resolves host names for all pools.
pub struct Resolver {
    /// For lookups in their first second, except those of slow names.
    starting: Arc<Semaphore>,
    capacity: Arc<Capacity>,
    /// The part of the capacity that is open to new names.
    new_capacity: Arc<Capacity>,
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
            new_capacity: Capacity::new(Some(new_share(capacity))),
            slow_capacity: Capacity::new(Some(slow_share(capacity))),
            lookup: Arc::new(lookup),
        }
    }

    /// Changes the capacity, which must be at least one. To be called within a runtime.
    pub fn resize(&self, capacity: usize) {
        self.capacity.resize(Some(capacity));
        self.new_capacity.resize(Some(new_share(capacity)));
        self.slow_capacity.resize(Some(slow_share(capacity)));
    }

    /// Looks up the addresses of a host. Dropping the future cancels the lookup while it waits to begin; once it has
    /// begun, its thread goes on.
    pub(super) fn resolve(
        &self,
        host: &str,
        port: u16,
        family: IpFamily,
        last: LastLookup,
    ) -> impl Future<Output = LookupResult> + Send + use<> {
        let share = match last {
            LastLookup::Never => Some(Arc::clone(&self.new_capacity)),
            LastLookup::Prompt => None,
            LastLookup::Slow => Some(Arc::clone(&self.slow_capacity)),
        };
        let starting = (last != LastLookup::Slow).then(|| Arc::clone(&self.starting));
        let (capacity, lookup, host) = (Arc::clone(&self.capacity), Arc::clone(&self.lookup), host.to_owned());
        async move {
            // First the share: while a name waits for it, it is in nobody's way.
            let share_permit = match &share {
                Some(share) => Some(share.acquire().await),
                None => None,
            };
            let start_permit = match &starting {
                Some(starting) => Some(starting.acquire().await.expect("this semaphore is never closed")),
                None => None,
            };
            let permit = capacity.acquire().await;
            let mut lookup = pin!(spawn_blocking(move || {
                let _permits = (permit, share_permit); // until the thread ends, even if the future is dropped
                lookup(&host, port, family)
            }));
            let prompt = timeout(PROMPT, &mut lookup).await;
            drop(start_permit);
            let (addresses, kind) = match prompt {
                Ok(addresses) => (addresses, LastLookup::Prompt),
                Err(_) => (lookup.await, LastLookup::Slow),
            };
            LookupResult {
                addresses: addresses.unwrap_or_else(|panicked| Err(io::Error::other(panicked))),
                kind,
            }
        }
    }
}

/// The share of new names: half of the capacity, but at least one.
fn new_share(capacity: usize) -> usize {
    (capacity / 2).max(1)
}

/// The share of slow names: a quarter of the capacity, but at least one.
fn slow_share(capacity: usize) -> usize {
    (capacity / 4).max(1)
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
