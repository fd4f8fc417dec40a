//! A session's place on a server, and what its end says of that server.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use crate::account::Entry;
use crate::ends::Endpoints;
use crate::live::LivePool;
use crate::pool::served::{Finished, Proof, ServerEnd};
use crate::pool::{Change, Lease};
use crate::relay::{Closed, Side};
use crate::socket::has_ended;

/// Of a session that has connected.
pub(super) struct Connected {
    lease: Lease,
    /// Weak, so that a session does not hold a plan that is no longer in force. When it is gone nobody wants to know how
    /// the session went.
    pool: Weak<LivePool>,
    at: Instant,
}

impl Connected {
    /// It has just connected.
    pub(super) fn new(lease: Lease, pool: &Arc<LivePool>) -> Self {
        Self {
            lease,
            pool: Arc::downgrade(pool),
            at: Instant::now(),
        }
    }

    /// What the pool may want to know, now that the bytes flow no more. To be called before the sockets are closed.
    pub(super) fn finished(&self, ends: &Endpoints, closed: Closed, entry: &Entry) -> Finished {
        let traffic = entry.traffic();
        let server_spoke = traffic.down.bytes() > 0;
        let server_ended = match closed {
            _ if server_spoke => None, // it does not matter, and asking the client's socket costs a system call
            Closed::Finished(Side::Server) => Some(ServerEnd::Closed),
            // A server may answer a client's end by a reset; then it was the client that ended first.
            Closed::Broke(Side::Server, _) if !has_ended(&ends.client) => Some(ServerEnd::Broke),
            _ => None,
        };
        Finished {
            client: entry.facts().client.ip(),
            connected: self.at,
            lasted: self.at.elapsed(),
            client_spoke: traffic.up.bytes() > 0,
            server_spoke,
            server_ended,
        }
    }

    /// The session is over: tells the pool, and gives the place back.
    pub(super) fn over(self, session: &Finished) {
        if session.proof(false) == Proof::Served && self.lease.is_untroubled() {
            return; // nearly all
        }
        let Some(pool) = self.pool.upgrade() else { return };
        let server = &self.lease.server().spec().label;
        match pool.finished(&self.lease, session, Instant::now()) {
            Some(Change::Ejected(back_off)) => {
                tracing::warn!(pool = %pool.name(), %server, reason = "unserved", ?back_off, "server is ejected");
            }
            Some(Change::Back) => tracing::info!(pool = %pool.name(), %server, "server is back"),
            None => {}
        }
    }
}
