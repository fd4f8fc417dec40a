//! The observer of a server, which is notified when the server changes.

use std::fmt::Debug;

/// Is notified when a change of a server may let a waiting client in. The queue of a pool is the observer of its
/// servers.
pub(super) trait ServerObserver: Debug + Send + Sync {
    /// Something has changed that may make room for a client. May be called with a server's state locked: the observer
    /// must not read that state here, but only wakes the tasks that wait for a change.
    fn notify_change(&self);

    /// A session has ended, so that a place on its server is free. Must not be called with a server's state locked: it
    /// may give the place to a waiting client at once, and reads the state of servers for that.
    fn place_freed(&self);
}
