//! How the allocator of the program keeps memory.

/// Lets glibc keep two heaps instead of up to eight for each core. Buffers of megabytes go from thread to thread here, and what
/// each heap keeps of them nobody else can use: a restore of 1 GB held 120 MB with many heaps, 85 MB with two. Other C libraries
/// need nothing.
pub(crate) fn keep_few_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "mallopt has no safe wrapper; it takes two numbers and keeps no pointer")]
    // SAFETY: no other thread runs yet, and every value is allowed: an unknown one is refused with 0.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
