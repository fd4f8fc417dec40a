//! How the allocator gives memory back to the system.

#![allow(unsafe_code)] // mallopt(3) has no safe wrapper

/// Has blocks of [`LARGE_BUFFER_BYTES`](crate::sniff::LARGE_BUFFER_BYTES) and more mapped one by one, so that they go back
/// to the system when they are freed. To be called before there are other threads.
///
/// glibc begins with 128 KiB and raises this to the size of the largest block that was freed so far (mallopt(3)). Smaller
/// blocks come from heaps that shrink only at their ends: after thousands of clients with 64 KiB each the process would
/// keep all that memory. To trim the heaps afterwards (malloc_trim(3)) would stop the workers for as long as it takes to
/// go over them; here each block pays for itself.
pub(super) fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers and changes nothing but glibc's own settings. A value that glibc does not take leaves
    // them as they are.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, crate::sniff::LARGE_BUFFER_BYTES as libc::c_int);
    }
}
