//! A session's lease on a server, and what the end of the session shows about that server.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::account::Entry;
use crate::cancel::{CancelEntry, CancelTarget};
use crate::dial::{HeldLease, close_unused};
use crate::ends::Endpoints;
use crate::live::{LivePool, PoolInForce};
use crate::pool::{EjectionChange, FinishedSession, Lease, ServerEnd, SessionOutcome};
use crate::relay::{Closed, Side};
use crate::socket::{Fault, has_ended, read_closed};
use crate::units::format_duration;

/// How long a server with a limit of sessions may take to end a session whose client has finished and is gone. After
/// that its connection is reset, because the server may still work for the client that is gone. This is far below
/// `HOLD_TIME_MAX`, so that the server can notice the reset before its place is given to another session.
const END_TIME_MAX: Duration = Duration::from_millis(100);

/// The server to which a session has connected, with the lease.
pub(super) struct LeasedServer {
    lease: HeldLease,
    pool: Arc<PoolInForce>,
    connected_at: Instant,
    /// The session's entry in the table for cancel requests. Only sessions of PostgreSQL have one.
    cancel: Option<Box<CancelEntry>>,
}

impl LeasedServer {
    /// The server of this pool that was just connected to.
    pub(super) fn new(lease: HeldLease, pool: &Arc<LivePool>) -> Self {
        Self {
            lease,
            pool: Arc::clone(pool.in_force()),
            connected_at: Instant::now(),
            cancel: None,
        }
    }

    /// Its label.
    pub(super) fn label(&self) -> &str {
        &self.lease.server().spec().label
    }

    /// Whether it is reached over TCP; otherwise over a Unix socket.
    pub(super) fn is_tcp(&self) -> bool {
        self.lease.server().spec().address.socket().is_some()
    }

    /// How a cancel request reaches the server; `None`: its pool is no longer in force.
    pub(super) fn cancel_target(&self) -> Option<CancelTarget> {
        let pool = self.pool.get()?;
        Some(CancelTarget {
            server: Arc::clone(self.lease.server()),
            pool: Arc::clone(pool.name()),
            connect: pool.plan().dial.connect.clone(),
        })
    }

    /// Records that the server has begun the session. Callers that cannot read the server's answer assume that it has.
    /// Later calls change nothing.
    pub(super) fn record_begun(&self) {
        let Some(pool) = self.pool.get() else { return };
        if pool.record_connect(self.lease.lease()) {
            tracing::info!(pool = %pool.name(), server = %self.label(), "server is back");
        }
    }

    /// The session's lease on the server.
    pub(super) fn lease(&self) -> &Lease {
        self.lease.lease()
    }

    /// Closes a connection on which the server has not begun the session. A lease that must be held is given back once
    /// the server has closed the connection, too, or after `HOLD_TIME_MAX`.
    pub(super) fn abandon(self, socket: TcpStream) {
        close_unused(socket, self.lease);
    }

    /// Keeps the session in the table for cancel requests until the server is released.
    pub(super) fn keep_cancel_entry(&mut self, cancel: CancelEntry) {
        self.cancel = Some(Box::new(cancel));
    }

    /// What the pool is told about the session, to judge the server.
    fn finished(&self, client: &TcpStream, closed: Closed, entry: &Entry) -> FinishedSession {
        let traffic = entry.traffic();
        let server_sent = traffic.down.bytes() > 0;
        let server_ended = match closed {
            _ if server_sent => None, // it does not matter, and asking the client's socket costs a system call
            Closed::Finished(Side::Server) => Some(ServerEnd::Closed),
            // A server may answer a client's end with a reset; then the client ended first.
            Closed::Broke(Side::Server, _) if !has_ended(client) => Some(ServerEnd::Aborted),
            _ => None,
        };
        FinishedSession {
            client: entry.info().client().host(),
            connected_at: self.connected_at,
            duration: self.connected_at.elapsed(),
            client_sent: traffic.up.bytes() > 0,
            server_sent,
            server_ended,
        }
    }

    /// Ends the lease, so that its place is free: the server has ended the session. The session may go on towards its
    /// client. Giving the lease back later changes nothing more.
    pub(super) fn end_lease(&self) {
        self.lease.end();
    }

    /// Closes the sockets, reports the session to the pool that is in force now, and gives the lease back.
    /// `ends_with_server`: the session is one of a database, which ends when its server ends it.
    pub(super) fn release(self, ends: Arc<Endpoints>, closed: Closed, entry: &Entry, ends_with_server: bool) {
        self.report(&ends.client, closed, entry);
        // Many clients close without a close_notify alert, which looks as if they were cut off. A database whose
        // sessions are limited gets a normal end of the stream nevertheless, so that it ends the session. That is safe:
        // messages of databases have lengths, so an end of the stream does not complete a message that was cut short.
        let is_truncated = closed == Closed::Broke(Side::Client, Fault::Truncated);
        let may_finish = is_truncated && ends_with_server && self.lease.must_be_held();
        if may_finish {
            ends.finish();
        }
        close(self.lease, ends, closed, may_finish || entry.traffic().up.has_ended());
    }

    /// Reports the session to the pool that is in force now. The client's socket must still be open.
    pub(super) fn report(&self, client: &TcpStream, closed: Closed, entry: &Entry) {
        let session = self.finished(client, closed, entry);
        let lease = self.lease.lease();
        if lease.has_failed() {
            return; // its client got the server's refusal, which was recorded when it came
        }
        let count_resets = false; // it does not matter for `Served`
        if session.outcome(count_resets) == SessionOutcome::Served && lease.server().has_clean_record() {
            return; // nearly every session
        }
        let Some(pool) = self.pool.get() else { return };
        let server = &lease.server().spec().label;
        match pool.record_end(lease, &session, Instant::now()) {
            Some(EjectionChange::Began(back_off)) => {
                tracing::warn!(pool = %pool.name(), %server, reason = "unserved", back_off = format_duration(back_off), "server is ejected");
            }
            Some(EjectionChange::Ended) => tracing::info!(pool = %pool.name(), %server, "server is back"),
            None => {}
        }
    }
}

/// Closes the sockets of a session that ended as `closed` says. A lease that must be held, because the sessions of its
/// server are limited, is given back when the server has ended the session, too, or after `HOLD_TIME_MAX`.
/// `is_end_sent`: the server was sent the end of the client's stream.
fn close(lease: HeldLease, ends: Arc<Endpoints>, closed: Closed, is_end_sent: bool) {
    // A client that has finished may be gone before the server has ended the session. The server then ends it by
    // itself. That end can only be seen if the connection is not reset.
    let is_client_gone = matches!(closed, Closed::Broke(Side::Client, _) | Closed::ResetAfterEnd(_));
    let awaits_server_end = lease.must_be_held() && is_client_gone && is_end_sent;
    let is_reset = closed.is_abrupt() && !awaits_server_end;
    if is_reset {
        ends.reset_when_closed();
    }
    let has_server_ended = || match closed {
        Closed::Finished(_) => true,
        Closed::Broke(Side::Server, fault) if fault != Fault::Tls => true,
        _ => has_ended(&ends.server),
    };
    if !lease.must_be_held() || has_server_ended() {
        drop(ends);
        lease.give_back();
    } else if awaits_server_end {
        lease.give_back_after(async move {
            if timeout(END_TIME_MAX, read_closed(&ends.server)).await.is_err() {
                ends.reset_when_closed();
                drop(ends);
                // The server's end cannot be seen any more: the lease is held until `HOLD_TIME_MAX` after the call of
                // `give_back_after`.
                pending().await
            }
        });
    } else if is_reset {
        drop(ends); // the server's end cannot be seen any more
        drop(lease); // its `Drop` holds the place for `HOLD_TIME_MAX`
    } else {
        ends.finish();
        lease.give_back_after(async move { read_closed(&ends.server).await });
    }
}
