//! A client's search for a server, from one failure to the next.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::{AfterFailure, Lease, Pool, QueueTurn, ServerFailure, ServerId};

/// How far a client has come in its search for a server.
#[derive(Debug, Default)]
pub struct Search {
    /// The servers that have failed it since it last waited for the return of one.
    pub(super) tried: Vec<ServerId>,
    pub(super) turn: QueueTurn,
}

impl Search {
    /// Records that the server of this lease has failed the client; `failure`: `None` if that does not count against
    /// the server. Returns whether the search goes on: to one of `retries` others or, if no other is left, to wait
    /// until one is back. Also returns the back-off, if that ejected the server.
    ///
    /// Drop the lease only after this call: the next client in line would get the place on the failed server otherwise.
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

    /// Forgets which servers have failed the client, so that it may get the server of this lease again. Only if no
    /// other can be picked now, and clients of this pool wait for the return of servers. Returns whether that is so.
    pub fn begin_again(&mut self, pool: &Pool, lease: &Lease, now: Instant) -> bool {
        let tried = [&self.tried[..], &[lease.server().id()]].concat();
        let begins_again = pool.waits_for_return() && !pool.can_pick_besides(&tried, now);
        if begins_again {
            self.tried.clear();
        }
        begins_again
    }
}
