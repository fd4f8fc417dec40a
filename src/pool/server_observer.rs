//! The observer of a server: it is notified when the server changes.

use std::fmt::Debug;

/// The clients that wait for a server: the queue of its pool.
pub(super) trait ServerObserver: Debug + Send + Sync {
    /// Something has changed that may make room. Never blocks, so that it may be called with a server's state locked.
    fn notify_change(&self);

    /// A place on a server has become free.
    fn place_freed(&self);
}
