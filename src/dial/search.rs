//! A client's search for a server, from one failure to the next.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::{Lease, Pool, QueueTurn, Rest, ServerId};

/// How far a client has come in its search for a server.
#[derive(Debug, Default)]
pub struct Search {
    /// The servers that have failed it since it last waited for the return of one.
    pub(super) tried: Vec<ServerId>,
    pub(super) turn: QueueTurn,
}

impl Search {
    /// The server of this lease has failed the client. Returns whether it goes on: to one of `retries` others or, if no other
    /// is left and this one `may_be_back_soon`, to wait until a server is back. Also returns the back-off, if that ejected the
    /// server.
    ///
    /// The place must be returned after that: the next client in line would get it otherwise.
    pub fn goes_on(
        &mut self,
        pool: &Pool,
        lease: &Lease,
        retries: u32,
        may_be_back_soon: bool,
        now: Instant,
    ) -> (bool, Option<Duration>) {
        self.tried.push(lease.server().id());
        let Rest { may_wait, back_off } = match may_be_back_soon {
            true => pool.rest(lease, &self.tried, now),
            false => Rest::default(),
        };
        if may_wait {
            self.tried.clear();
            return (true, back_off);
        }
        let goes_on = self.tried.len() <= retries as usize && !pool.has_only(&self.tried, now);
        (goes_on, back_off)
    }
}
