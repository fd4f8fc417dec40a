//! The observer of a server, which is notified when the server changes.

use std::fmt::Debug;

/// Is notified when a change of a server may let a waiting client in. The queue of a pool is the observer of its
/// servers.
pub(super) trait ServerObserver: Debug + Send + Sync {
    /// Something has changed that may make room for a client. Never blocks, so that it may be called with a server's
    /// state locked.
    fn notify_change(&self);

    /// A place on a server has become free.
    fn place_freed(&self);
}
