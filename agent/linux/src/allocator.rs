//! The memory allocator of the process.

/// Has all threads allocate from at most this many arenas (glibc makes eight a core, and what one has freed another
/// cannot use). Says whether it was done; other C libraries have nothing to set.
pub fn limit_malloc_arenas(most: u16) -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and keeps no reference; glibc locks what it changes.
    return unsafe { libc::mallopt(libc::M_ARENA_MAX, libc::c_int::from(most)) } == 1;
    #[cfg(not(target_env = "gnu"))]
    {
        let _ = most;
        false
    }
}
