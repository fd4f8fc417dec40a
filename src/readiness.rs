//! Waits until a descriptor is readable, without reading from it. A pidfd is readable when its process has ended. A
//! listening socket is readable when a client waits: a session's permit is taken then, before the client is accepted.
//! tokio's listener cannot wait without accepting.

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
    // SAFETY: an `OwnedFd` always returns the same descriptor, and keeps it open until the `OwnedFd` is dropped. The
    // `AsyncFd` deregisters the descriptor before it drops the `OwnedFd`.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
