//! Waits until a descriptor is readable, without reading from it: the descriptor of a process, which is readable when
//! the process has ended, or a listening socket, because a session's permit is taken when a client waits, but before it
//! is accepted. tokio's listener can only accept.

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
