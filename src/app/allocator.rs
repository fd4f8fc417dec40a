//! Makes the allocator return large buffers to the system.

#![allow(unsafe_code)] // mallopt(3) has no safe wrapper

/// Makes glibc map each block of [`LARGE_BUFFER_BYTES`](crate::sniff::LARGE_BUFFER_BYTES) or more separately, so that
/// its memory returns to the system when it is freed. To be called before other threads start: mallopt(3) is not
/// thread-safe.
///
/// glibc's own threshold is 128 KiB at first, and rises to the size of the largest mapped block that was freed
/// (mallopt(3)). Smaller blocks come from heaps that shrink only at their ends: after thousands of clients with 64 KiB
/// each, the process would keep all that memory. malloc_trim(3) would return it, but would stop the workers while it
/// walks the heaps; a separate mapping costs two system calls for each block instead.
pub(super) fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and changes only glibc's settings; it ignores a value that it does not accept.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, crate::sniff::LARGE_BUFFER_BYTES as libc::c_int);
    }
}
