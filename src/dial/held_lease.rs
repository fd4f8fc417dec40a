//! A session's lease on a server. If the server is limited (`max_sessions`), the lease keeps the session's place there
//! until the server has ended the session.
//!
//! The process of such a server may have a limit, too, and counts a session from the connect until it has seen the end
//! of the session. So the place on a limited server is returned when the server has ended the session, even if the
//! session then goes on towards its client. If the server does not end it, the place is returned [`HOLD_TIME_MAX`]
//! after we have ended the session. Leases on servers without a limit are returned at once.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::pool::{Lease, Server};

/// How long a place is kept, at most, after we have ended the session with the server. A working server sees the end of
/// the session within this time; one that hangs does not block the place for long.
pub const HOLD_TIME_MAX: Duration = Duration::from_secs(1);

/// A lease. If it is dropped after a connect to its server has begun, for example because the session is cut, the place
/// on a limited server is kept for [`HOLD_TIME_MAX`].
#[derive(Debug)]
pub struct HeldLease(Option<Lease>);

impl HeldLease {
    /// A lease on a server to which no connect has begun yet.
    pub(super) fn new(lease: Lease) -> Self {
        Self(Some(lease))
    }

    /// Notes that a connect begins.
    pub(super) fn set_connecting(&mut self) {
        self.0.iter_mut().for_each(Lease::set_connecting);
    }

    /// The lease.
    pub fn lease(&self) -> &Lease {
        self.0.as_ref().expect("only a call that ends `self` takes it")
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        self.lease().server()
    }

    /// Whether the place is kept until the server has ended the session.
    #[must_use]
    pub fn must_be_held(&self) -> bool {
        self.lease().must_be_held()
    }

    /// Ends the lease at once: the server has ended the session. Later calls, and the drop, change nothing.
    pub fn end(&self) {
        self.lease().end();
    }

    /// Gives the lease back now: the place need not be kept.
    pub fn give_back(mut self) {
        drop(self.0.take());
    }

    /// Gives the lease back when `server_end` is ready, which means that the server has ended the session;
    /// [`HOLD_TIME_MAX`] from now at the latest.
    pub fn give_back_after(mut self, server_end: impl Future<Output = ()> + Send + 'static) {
        spawn(hold(self.0.take(), server_end).boxed());
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take().filter(Lease::must_be_held) {
            spawn(hold(Some(lease), pending()).boxed());
        }
    }
}

async fn hold(lease: Option<Lease>, server_end: impl Future<Output = ()>) {
    let _ = timeout(HOLD_TIME_MAX, server_end).await;
    drop(lease);
}

/// Runs a task on the worker's runtime. If the runtime has ended, the task is dropped, and with it the lease: no place
/// has to be kept any more.
///
/// Cold, and not generic: spawning is much code, which would be inlined where every session closes.
#[cold]
fn spawn(task: BoxFuture<'static, ()>) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(task);
    }
}
