//! `IP_BIND_ADDRESS_NO_PORT` of ip(7).

#![allow(unsafe_code)] // neither socket2 nor rustix wraps this option

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Makes the kernel choose the local port in `connect` instead of in `bind`, for a socket that is bound to port 0. Then
/// the port has to be free only for connections to the server that `connect` names. A port that is chosen in `bind` has
/// to be free for connections to all servers. The option works for IPv6, too.
///
/// # Errors
/// Those of `setsockopt`.
pub(super) fn choose_port_late(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` lives through the call, and its size is the length that is given.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
