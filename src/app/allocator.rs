//! Makes the allocator return large buffers to the system.

#![allow(unsafe_code)] // mallopt(3) has no safe wrapper

/// Makes glibc map a block of [`LARGE_BUFFER_BYTES`](crate::sniff::LARGE_BUFFER_BYTES) (20 KiB) or more separately,
/// unless a heap has free memory for it, so that the memory of the block returns to the system when it is freed. At
/// most 65,536 blocks are mapped at a time (`M_MMAP_MAX`). To be called before other threads start: mallopt(3) is not
/// thread-safe.
///
/// Without this call, glibc maps such blocks only from 128 KiB on, and raises this threshold to the size of the largest
/// mapped block that was freed. A threshold that is set stays as it is (mallopt(3)). Blocks below the threshold come
/// from heaps, which shrink only at their ends: after thousands of clients had a buffer of, say, 64 KiB each, the
/// process would keep all that memory. malloc_trim(3) would return the memory, but would stop the workers while it
/// walks the heaps. Separate mappings cost two system calls for each block instead.
pub(super) fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and changes only glibc's settings; it ignores a value that it does not accept.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, crate::sniff::LARGE_BUFFER_BYTES as libc::c_int);
    }
}
