//! Waiting for a listening socket without accepting from it: tokio's own listener cannot, and a place for a session
//! is taken only between "a client is there" and accepting it.

#![allow(unsafe_code)] // tokio leaves it to the caller that the descriptor stays open

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a listening socket with the calling thread's runtime.
pub(super) fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` answers always with the same descriptor and keeps it open until it is dropped, which the
    // `AsyncFd` does only after it has deregistered it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}
