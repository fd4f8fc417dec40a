//! Descriptors that a started program must not inherit: `close_range(2)`.

#![allow(unsafe_code)] // neither rustix nor the standard library wraps this call

/// Sets close-on-exec on all descriptors but the standard ones. This process opens every descriptor with close-on-exec,
/// but it may have inherited others without it, for example from a service manager. Kernels before 5.11 do not know
/// `CLOSE_RANGE_CLOEXEC`: there, a started program inherits these others.
pub(crate) fn set_close_on_exec_on_all() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: with `CLOSE_RANGE_CLOEXEC` the call marks descriptors and closes none; it reads and writes no memory.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
    }
}
