//! A session's lease of a server, and what the end of the session says of that server.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use crate::account::Entry;
use crate::ends::Endpoints;
use crate::live::LivePool;
use crate::pool::served::{Finished, Proof, ServerEnd};
use crate::pool::{Change, Lease};
use crate::relay::{Closed, Side};
use crate::socket::has_ended;

/// The server of a session that has connected.
pub(super) struct LeasedServer {
    lease: Lease,
    /// Weak, so that a session does not keep a plan that is no longer in force. Once the plan is gone, nothing uses what
    /// the session says of the server.
    pool: Weak<LivePool>,
    connected_at: Instant,
}

impl LeasedServer {
    /// A server of this pool, which was just connected to.
    pub(super) fn new(lease: Lease, pool: &Arc<LivePool>) -> Self {
        Self {
            lease,
            pool: Arc::downgrade(pool),
            connected_at: Instant::now(),
        }
    }

    /// What the relayed session says of the server. To be called before the sockets are closed.
    pub(super) fn finished(&self, ends: &Endpoints, closed: Closed, entry: &Entry) -> Finished {
        let traffic = entry.traffic();
        let server_spoke = traffic.down.bytes() > 0;
        let server_ended = match closed {
            _ if server_spoke => None, // not needed, and has_ended costs a system call
            Closed::Finished(Side::Server) => Some(ServerEnd::Closed),
            // A server may answer the client's end by a reset; then the client ended first.
            Closed::Broke(Side::Server, _) if !has_ended(&ends.client) => Some(ServerEnd::Broke),
            _ => None,
        };
        Finished {
            client: entry.info().client.ip(),
            connected: self.connected_at,
            lasted: self.connected_at.elapsed(),
            client_spoke: traffic.up.bytes() > 0,
            server_spoke,
            server_ended,
        }
    }

    /// Reports the session to the pool, and returns the lease.
    pub(super) fn release(self, session: &Finished) {
        if session.proof(false) == Proof::Served && self.lease.is_untroubled() {
            return; // nearly every session
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
