//! Signal dispositions and mask, as a program expects to find them.

use rustix::io::Errno;

/// Gives every signal its default action and blocks none. For a program about to execute another: what
/// is ignored or blocked stays so across `execve(2)`.
pub fn reset_signals() -> Result<(), Errno> {
    // SAFETY: sigaction is a plain C structure; all zeroes mean SIG_DFL, no flags and an empty mask.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    for signal in 1..=libc::SIGRTMAX() {
        // KILL and STOP cannot be changed, and the C library keeps its own two: EINVAL.
        // SAFETY: the structure outlives the call, and a default action runs no code of ours.
        unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) };
    }
    // SAFETY: as above; an empty set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives the call.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
    crate::errno::check(result.into()).map(drop)
}
