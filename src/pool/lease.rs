//! A session's place on a server.

use std::sync::Arc;

use super::Server;
use super::health::Terms;

/// One session's place on a server. Dropping it gives the place back.
#[must_use = "dropping the lease gives the place back"]
#[derive(Debug)]
pub struct Lease {
    server: Arc<Server>,
    terms: Terms,
}

impl Lease {
    pub(super) fn take(server: &Arc<Server>, terms: Terms) -> Self {
        server.entered();
        Self {
            server: Arc::clone(server),
            terms,
        }
    }

    pub(super) fn terms(&self) -> Terms {
        self.terms
    }

    /// Whether the end of a session that was served changes nothing: nothing is on record against the server.
    #[must_use]
    pub fn is_untroubled(&self) -> bool {
        !self.server.is_troubled()
    }

    /// The server the place is on.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.left();
    }
}
