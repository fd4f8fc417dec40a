//! Who is at the other end of a Unix socket: `getsockopt(SO_PEERCRED)`, unix(7).

#![allow(unsafe_code)] // rustix wraps this option, but cannot return pid 0: a process in another namespace

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

use crate::addr::UnixPeer;

/// The process at the other end.
///
/// # Errors
/// That of getsockopt(2).
pub fn peer_of(socket: &impl AsFd) -> io::Result<UnixPeer> {
    let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `credentials` and `length` live through the call, `length` is the size of `credentials`, and the kernel
    // writes at most that many bytes.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            credentials.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, so that all of it is initialised. Every bit pattern of plain integers is valid.
    let credentials = unsafe { credentials.assume_init() };
    Ok(UnixPeer {
        uid: credentials.uid,
        pid: u32::try_from(credentials.pid).unwrap_or(0),
    })
}
