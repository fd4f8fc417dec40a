//! A client's search for a server, from one failure to the next.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::{AfterFailure, Lease, Pool, QueueTurn, ServerFailure, ServerId};

/// How far a client has come in its search for a server.
#[derive(Debug, Default)]
pub struct Search {
    /// The servers that have failed the client since it last waited for the return of a server.
    pub(super) tried: Vec<ServerId>,
    /// The client's place in the pool's queue, which it keeps after a failed connect.
    pub(super) turn: QueueTurn,
}

impl Search {
    /// Records that the server of this lease has failed the client. `failure`: `None` if this does not count against
    /// the server. At most `retries` other servers are tried.
    ///
    /// Returns whether the search goes on, which may also mean to wait until a server is back; and the back-off, if
    /// the failure has ejected the server.
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
    ) -> (bool, Option<Duration>) {
        self.tried.push(lease.server().id());
        let after = failure.map(|failure| pool.record_failure(lease, &self.tried, failure, now));
        let AfterFailure { may_wait, back_off } = after.unwrap_or_default();
        if may_wait {
            self.tried.clear();
            return (true, back_off);
        }
        let goes_on = self.tried.len() <= retries as usize && pool.has_any_besides(&self.tried, now);
        (goes_on, back_off)
    }

    /// Forgets which servers have failed the client, so that the client may get the same server again. Does so only if
    /// clients of this pool wait for the return of servers, and no server can be picked now besides those that were
    /// tried and that of this lease. Returns whether it did.
    pub fn begin_again(&mut self, pool: &Pool, lease: &Lease, now: Instant) -> bool {
        let tried = [&self.tried[..], &[lease.server().id()]].concat();
        let begins_again = pool.waits_for_return() && !pool.can_pick_besides(&tried, now);
        if begins_again {
            self.tried.clear();
        }
        begins_again
    }
}
