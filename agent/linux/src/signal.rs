//! Signal dispositions and mask, as a program expects to find them, and sending signals by number.

use std::os::fd::{AsFd, AsRawFd};

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

/// Sends the process a signal by its number, which may be that of a real-time signal: an image names them
/// as its stop signal (`SIGRTMIN+3` asks systemd to shut down).
///
/// See `pidfd_send_signal(2)`; `EINVAL` for a number that is no signal's.
pub fn pidfd_send_signal_number(pidfd: impl AsFd, number: i32) -> Result<(), Errno> {
    // SAFETY: no siginfo is passed, so the kernel reads no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    crate::errno::check(result).map(drop)
}
