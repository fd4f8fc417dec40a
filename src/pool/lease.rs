//! A session's claim on a server.

use std::sync::Arc;

use super::Server;
use super::ejection::LeaseKind;

/// One session's claim on a server: it counts as an open session there until the lease is dropped.
#[must_use = "dropping the lease ends the session's claim"]
#[derive(Debug)]
pub struct Lease {
    server: Arc<Server>,
    kind: LeaseKind,
}

impl Lease {
    pub(super) fn take(server: &Arc<Server>, kind: LeaseKind) -> Self {
        server.add_session();
        Self {
            server: Arc::clone(server),
            kind,
        }
    }

    pub(super) fn kind(&self) -> LeaseKind {
        self.kind
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.remove_session();
    }
}
