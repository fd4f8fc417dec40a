//! A client's search for a server, from one failure to the next.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::{AfterFailure, Lease, Pool, QueueTurn, ServerFailure, ServerId};

/// What follows from an attempt to connect.
#[derive(Clone, Copy, Debug, Default)]
pub struct AfterAttempt {
    /// Whether the client searches on. It may first have to wait until a server is back.
    pub goes_on: bool,
    /// For how long the server is ejected, if this failure has ejected it.
    pub ejected_for: Option<Duration>,
}

/// How far a client has come in its search for a server.
#[derive(Debug, Default)]
pub struct Search {
    /// The servers that have failed the client since it last waited for the return of a server.
    pub(super) tried: Vec<ServerId>,
    /// The client's place in the pool's queue, which it keeps after a failed connect.
    pub(super) turn: QueueTurn,
}

impl Search {
    /// Records that the server of this lease has failed the client. `failure`: `None` if the pool does not count this
    /// against the server. At most `retries` other servers are tried; the count begins anew when the client may wait
    /// for the return of a server.
    ///
    /// Drop the lease only after this call: otherwise, the next client in line would get the lease's place on the
    /// failed server.
    pub fn record_failure(
        &mut self,
        pool: &Pool,
        lease: &Lease,
        retries: u32,
        failure: Option<ServerFailure>,
        now: Instant,
    ) -> AfterAttempt {
        self.tried.push(lease.server().id());
        let after = failure.map(|failure| pool.record_failure(lease, &self.tried, failure, now));
        let AfterFailure { may_wait, back_off } = after.unwrap_or_default();
        let goes_on = if may_wait {
            self.tried.clear();
            true
        } else {
            self.tried.len() <= retries as usize && pool.has_any_besides(&self.tried, now)
        };
        AfterAttempt {
            goes_on,
            ejected_for: back_off,
        }
    }

    /// Lets the client try again the servers that have failed it, if clients of this pool wait for the return of
    /// servers and no other server can be picked now. The server of this lease counts as one that has failed the
    /// client. Returns whether the client may try them again.
    pub fn begin_again(&mut self, pool: &Pool, lease: &Lease, now: Instant) -> bool {
        let tried = [&self.tried[..], &[lease.server().id()]].concat();
        let begins_again = pool.waits_for_return() && !pool.can_pick_besides(&tried, now);
        if begins_again {
            self.tried.clear();
        }
        begins_again
    }
}
