//! A session's lease, which is kept until its server has ended the session, too.
//!
//! A server that takes only so many sessions counts one until it has seen its end. So the place on a limited server comes
//! back when the server's end is seen, or [`HOLD_TIME_MAX`] after ours. Leases of other servers are returned at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::ends::Endpoints;
use crate::pool::Lease;
use crate::relay::{Closed, Side};
use crate::socket::{has_ended, read_closed};

/// How long a place is kept after our end of the connection.
const HOLD_TIME_MAX: Duration = Duration::from_secs(1);

/// A lease. Dropping it, as when a session is cut, keeps the place of a limited server for [`HOLD_TIME_MAX`].
pub(super) struct HeldLease(Option<Lease>);

impl HeldLease {
    pub(super) fn new(lease: Lease) -> Self {
        Self(Some(lease))
    }

    pub(super) fn lease(&self) -> &Lease {
        self.0.as_ref().expect("it is taken out only when it is returned")
    }

    /// Closes the sockets of a session that has ended so, and returns the lease when the server has ended it.
    pub(super) fn close(mut self, ends: Arc<Endpoints>, closed: Closed) {
        if closed.is_abrupt() {
            ends.reset_when_closed();
        }
        let has_server_ended = || match closed {
            Closed::Finished(_) | Closed::Broke(Side::Server, _) => true,
            _ => has_ended(&ends.server),
        };
        if !self.lease().is_limited() || has_server_ended() {
            drop(ends);
            drop(self.0.take());
        } else if closed.is_abrupt() {
            drop(ends); // nothing more is seen of a connection that was reset
            drop(self);
        } else {
            spawn(wait_for_end(ends, self.0.take()));
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take().filter(Lease::is_limited) {
            spawn(async {
                sleep(HOLD_TIME_MAX).await;
                drop(lease);
            });
        }
    }
}

/// Ends both connections, and keeps the lease until the server has ended its own.
async fn wait_for_end(ends: Arc<Endpoints>, lease: Option<Lease>) {
    ends.finish();
    let _ = timeout(HOLD_TIME_MAX, read_closed(&ends.server)).await;
    drop(ends);
    drop(lease);
}

/// Runs this on the worker's runtime. When that ends, no place is needed any more.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(task);
    }
}
