//! Descriptors: those that were there before the program was, and room for those to come.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes ownership of a descriptor this program was started with, and lets it end with the next
/// `execve(2)`. Each can be taken once: a second time is `EBUSY`, a closed one `EBADF`.
///
/// Call it before anything that opens descriptors, or the number may be one of theirs.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(Errno::BUSY);
    }
    // SAFETY: it reads and writes a flag of a descriptor, or fails.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    crate::errno::check(result.into())?;
    taken.push(number);
    // SAFETY: it is open, and nobody else took it; by contract nothing of this program opened it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets every descriptor from `first` up end with the next `execve(2)`. Since Linux 5.11.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: with CLOEXEC nothing is closed now; only flags change.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    crate::errno::check(result).map(drop)
}

/// Lets this process, and those it starts from now on, have as many descriptors as it may raise its limit to: that many.
///
/// # Errors
/// The kernel refuses.
pub fn raise_descriptor_limit() -> Result<u64, Errno> {
    let limit = getrlimit(Resource::Nofile);
    // No limit is less than any number.
    let most = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < most) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    Ok(most)
}

/// As [`raise_descriptor_limit`], and makes room for `room` descriptors, or as many as there may be.
///
/// Call it before there are threads. The kernel makes a table of descriptors larger when it is full, at 64, 256, 512 and
/// so on, and in a process with threads it waits each time until no processor reads the old one (a grace period of RCU: 10
/// to 20 ms), in which nothing else of the process is opened either. Room for 4096 takes 33 KiB of the kernel's memory.
///
/// # Errors
/// The kernel refuses. The limit may have been raised then.
pub fn make_room_for_descriptors(room: u32) -> Result<(), Errno> {
    let last = u64::from(room).min(raise_descriptor_limit()?).saturating_sub(1);
    // What it duplicates does not matter.
    let any = eventfd(0, EventfdFlags::CLOEXEC)?;
    fcntl_dupfd_cloexec(&any, last.try_into().map_err(|_| Errno::INVAL)?).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_descriptors_once_it_was_made() {
        let size = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            line.trim().parse::<u32>().unwrap()
        };
        let room = size() * 2;
        make_room_for_descriptors(room).unwrap();
        assert_eq!(size(), room);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
