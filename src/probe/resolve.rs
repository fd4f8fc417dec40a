//! The system's resolver, asked a few things at once.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

/// Questions under way at once, over all pools: each takes a thread and a socket, and the descriptors kept for such
/// things are few (see [`crate::descriptors`]).
const TURNS: usize = 4;

/// What finds the addresses of a host, with this port; it may take its time.
type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// A question that waits for its turn or its answer. Dropping it takes it back as long as it waits for its turn.
pub(super) type Question = AbortOnDropHandle<io::Result<Vec<SocketAddr>>>;

/// Whom all pools ask for addresses.
pub(super) struct Resolver {
    turns: Arc<Semaphore>,
    lookup: Arc<Lookup>,
}

impl Resolver {
    /// The system's, as `getaddrinfo(3)` asks it.
    pub(super) fn system() -> Self {
        Self::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    pub(super) fn new(lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(TURNS)),
            lookup: Arc::new(lookup),
        }
    }

    /// Asks for the addresses of a host; who asked first has the first turn. The answer may never come.
    pub(super) fn ask(&self, host: &str, port: u16) -> Question {
        let (turns, lookup, host) = (Arc::clone(&self.turns), Arc::clone(&self.lookup), host.to_owned());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let turn = turns.acquire_owned().await.expect("this semaphore is never closed");
            let asked = spawn_blocking(move || {
                let _turn = turn; // until the thread is done: nobody can interrupt it, even if nobody waits for it
                lookup(&host, port)
            });
            asked.await.unwrap_or_else(|lost| Err(io::Error::other(lost)))
        }))
    }
}
