//! How the allocator of the program keeps memory.

/// Lets glibc keep two heaps instead of up to eight for each core, and takes large buffers from the system and not from them.
/// Buffers of megabytes go from thread to thread here, and what each heap keeps of them nobody else can use: a restore of 1 GB
/// held 120 MB with many heaps, 85 MB with two. Among small ones they leave holes that add up: a create of 10 GB held 109 MB,
/// 84 MB with large buffers apart. Other C libraries need nothing.
pub(crate) fn keep_few_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 2),
        // Given, it stays; otherwise it grows with the largest buffer that was freed.
        (libc::M_MMAP_THRESHOLD, 1 << 20),
        (libc::M_TRIM_THRESHOLD, 16 << 20),
    ] {
        #[expect(
            unsafe_code,
            reason = "mallopt has no safe wrapper; it takes two numbers and keeps no pointer"
        )]
        // SAFETY: no other thread runs yet, and every value is allowed: an unknown one is refused with 0.
        unsafe {
            libc::mallopt(parameter, value);
        }
    }
}
