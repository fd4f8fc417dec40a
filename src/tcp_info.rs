//! The kernel's figures of a TCP connection: `getsockopt(TCP_INFO)`.

#![allow(unsafe_code)] // neither socket2 nor rustix wraps this option

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The fields of TCP_INFO that are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Segments sent again, over the whole connection.
    pub retransmits: u32,
    /// Segments sent and not acknowledged.
    pub unacknowledged: u32,
    /// Bytes given to the kernel and not sent yet.
    pub not_sent_bytes: u32,
}

impl TcpInfo {
    /// Reads the fields from the kernel; `None` on an error.
    #[must_use]
    pub fn read(socket: BorrowedFd<'_>) -> Option<Self> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: `info` and `length` live through the call, `length` is the size of `info`, and the kernel writes at
        // most that many bytes.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if answer != 0 {
            return None;
        }
        // SAFETY: the struct has only integers, for which every bit pattern is valid. It was zeroed, so that the bytes
        // that an older kernel does not fill in are initialized, too.
        let info = unsafe { info.assume_init() };
        Some(Self {
            rtt_us: info.tcpi_rtt,
            retransmits: info.tcpi_total_retrans,
            unacknowledged: info.tcpi_unacked,
            not_sent_bytes: info.tcpi_notsent_bytes,
        })
    }
}
