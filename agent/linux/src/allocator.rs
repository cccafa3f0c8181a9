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

/// Gives the whole pages of what is free back to the kernel, wherever in the arenas they lie; freed memory otherwise goes back
/// only from an arena's end. For the end of a burst: it looks at all that is free, a millisecond's work for a few MB, and
/// whatever needs memory meanwhile waits. Says whether there was any; other C libraries have nothing like it.
pub fn give_free_memory_back() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes an integer; glibc locks what it changes.
    return unsafe { libc::malloc_trim(0) == 1 };
    #[cfg(not(target_env = "gnu"))]
    false
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_between_what_is_not_goes_back_when_it_is_asked_for() {
        keep_malloc_small(1);
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
            pages * rustix::param::page_size()
        };
        // Each too small for a mapping of its own; the last keeps those before it from the arena's end.
        let mut blocks: Vec<_> = (0..256).map(|_| vec![1u8; 64 << 10]).collect();
        let last = blocks.pop();
        let before = resident();
        drop(blocks);
        assert!(resident() > before - (8 << 20), "glibc keeps it");
        assert!(give_free_memory_back());
        assert!(resident() < before - (14 << 20), "of 16 MB, {} before and {} after", before, resident());
        drop(last);
    }
}
