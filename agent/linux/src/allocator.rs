//! The memory allocator of the process.

/// From this size on memory has a mapping of its own: glibc's first threshold (`M_MMAP_THRESHOLD`).
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 128 << 10;

/// Has what is freed serve others, or go back to the kernel. All threads allocate from at most so many arenas (glibc makes
/// eight a core, and what one has freed another cannot use). And large memory is unmapped when it is freed: glibc otherwise
/// takes the first that is freed for a sign that there will be more of that size, and keeps up to twice as much in each
/// arena for them. Says whether it was done; other C libraries have nothing to set.
pub fn keep_malloc_small(arenas: u16) -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and keeps no reference; glibc locks what it changes.
    return unsafe {
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::from(arenas)) == 1
            && libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING) == 1
    };
    #[cfg(not(target_env = "gnu"))]
    {
        let _ = arenas;
        false
    }
}
