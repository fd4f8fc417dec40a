//! Waiting until a descriptor can be read, without reading from it: for a listening socket, because tokio's listener cannot do
//! that and a session's permit is taken only after a client is known to wait; and for the end of a process.

#![allow(unsafe_code)] // tokio requires of the caller that the descriptor stays open

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the calling thread's runtime.
///
/// # Errors
/// Those of `epoll_ctl`.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always returns the same descriptor and keeps it open until it is dropped, which the
    // `AsyncFd` does only after it has deregistered it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
