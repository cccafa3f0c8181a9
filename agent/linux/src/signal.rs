//! Signal dispositions and mask, as a program expects to find them.

use rustix::io::Errno;

/// The kernel's `_NSIG`.
const LAST_SIGNAL: libc::c_int = 64;

/// The kernel's `sizeof(sigset_t)`.
const SIGNAL_SET_SIZE: usize = 8;

/// Gives every signal its default action and blocks none. For a program about to execute another: what
/// is ignored or blocked stays so across `execve(2)`.
pub fn reset_signals() -> Result<(), Errno> {
    // The kernel's own structure (handler, flags, restorer, mask), because the C library refuses to touch
    // the two signals it uses itself. All zeroes mean SIG_DFL.
    let default = [0_u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // KILL and STOP cannot be changed: EINVAL.
        // SAFETY: the structure outlives the call, and a default action runs no code of ours.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGNAL_SET_SIZE,
            )
        };
    }
    let none = 0_u64;
    // SAFETY: the set outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut::<u64>(),
            SIGNAL_SET_SIZE,
        )
    };
    crate::errno::check(result).map(drop)
}
