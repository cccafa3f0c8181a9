//! Descriptors that were there before the program was.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use rustix::io::Errno;

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
