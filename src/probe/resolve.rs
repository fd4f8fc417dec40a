//! The system's resolver, asked for many names at once.
//!
//! Nobody can interrupt getaddrinfo(3): a lookup has a thread and a socket until the system gives up, which takes 10 to
//! 30 s where a name server drops the query (`timeout` and `attempts` of resolv.conf(5)). Three bounds make sure that a
//! name without an answer delays no other, and that a name server is not flooded:
//!
//! - [`TURNS`] lookups begin at once. One that takes longer than [`PROMPT`] gives its turn to the next.
//! - So many as there are places (see [`crate::descriptors`]) are under way at once, those without an answer included.
//! - A name whose last lookup was not prompt waits in a line of its own, which has half of the places.

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

/// Lookups that are expected to be answered soon, at once. Each may be two queries; a small forwarder refuses the 151st
/// (`dns-forward-max` of dnsmasq).
const TURNS: usize = 32;

/// An answer that takes longer is not prompt.
const PROMPT: Duration = Duration::from_secs(1);

/// Finds the addresses of a host, with this port; it may take its time.
type Lookup = dyn Fn(&str, u16, IpFamily) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What a lookup found.
pub(super) struct Found {
    /// The addresses, in any order.
    pub(super) addresses: io::Result<Vec<SocketAddr>>,
    /// Whether it took no longer than [`PROMPT`].
    pub(super) is_prompt: bool,
}

/// Whom all pools ask for addresses.
pub(super) struct Resolver {
    turns: Arc<Semaphore>,
    places: Arc<Capacity>,
    places_of_slow: Arc<Capacity>,
    lookup: Arc<Lookup>,
}

impl Resolver {
    /// The system's, with so many places.
    pub(super) fn system(places: usize) -> Self {
        Self::new(places, by_the_system)
    }

    pub(super) fn new(
        places: usize,
        lookup: impl Fn(&str, u16, IpFamily) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(TURNS)),
            places: Capacity::new(Some(places)),
            places_of_slow: Capacity::new(Some(half(places))),
            lookup: Arc::new(lookup),
        }
    }

    /// Has so many places from now on; at least one. To be called within a runtime.
    pub(super) fn resize(&self, places: usize) {
        self.places.resize(Some(places));
        self.places_of_slow.resize(Some(half(places)));
    }

    /// Asks for the addresses of a host. `was_prompt`: the lookup of this name before was, or there was none. Dropping
    /// the future takes the question back as long as it waits for its turn; after that the thread goes on without it.
    pub(super) fn ask(
        &self,
        host: &str,
        port: u16,
        family: IpFamily,
        was_prompt: bool,
    ) -> impl Future<Output = Found> + Send + use<> {
        let (turns, places, of_slow) = (&self.turns, &self.places, &self.places_of_slow);
        let (turns, places, of_slow) = (Arc::clone(turns), Arc::clone(places), Arc::clone(of_slow));
        let (lookup, host) = (Arc::clone(&self.lookup), host.to_owned());
        async move {
            let (turn, of_slow) = if was_prompt {
                let turn = turns.acquire().await.expect("this semaphore is never closed");
                (Some(turn), None)
            } else {
                (None, Some(of_slow.acquire().await))
            };
            let place = places.acquire().await;
            let mut asked = pin!(spawn_blocking(move || {
                let _places = (place, of_slow); // until the thread is done, whether or not somebody waits for it
                lookup(&host, port, family)
            }));
            let prompt = timeout(PROMPT, &mut asked).await;
            drop(turn);
            let is_prompt = prompt.is_ok();
            let found = match prompt {
                Ok(found) => found,
                Err(_) => asked.await,
            };
            Found {
                addresses: found.unwrap_or_else(|lost| Err(io::Error::other(lost))),
                is_prompt,
            }
        }
    }
}

const fn half(places: usize) -> usize {
    if places > 1 { places / 2 } else { 1 }
}

/// By getaddrinfo(3), which goes by nsswitch.conf(5), hosts(5) and resolv.conf(5).
fn by_the_system(host: &str, port: u16, family: IpFamily) -> io::Result<Vec<SocketAddr>> {
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
    let found = getaddrinfo(Some(host), None, Some(hints))?;
    found.map(|info| info.map(|info| at_port(info.sockaddr))).collect()
}
