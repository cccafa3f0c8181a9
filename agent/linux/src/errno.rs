//! The error of a raw system call.

use rustix::io::Errno;

/// The result of a call made by `libc::syscall`, which leaves its error in the thread's `errno`.
pub(crate) fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}
