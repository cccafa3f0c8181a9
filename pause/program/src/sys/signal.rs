//! Signals.

use super::{O_CLOEXEC, O_NONBLOCK, Result, call, nr};

pub(crate) const SIGINT: u32 = 2;
pub(crate) const SIGKILL: u32 = 9;
pub(crate) const SIGTERM: u32 = 15;
pub(crate) const SIGCHLD: u32 = 17;

/// The kernel's set of 64 signals; the `SET_SIZE` system calls ask for is its size in bytes.
pub(crate) type Set = u64;
const SET_SIZE: usize = size_of::<Set>();

pub(crate) const NONE: Set = 0;
pub(crate) const ALL: Set = u64::MAX;

pub(crate) const fn set_of(signal: u32) -> Set {
    1 << (signal - 1)
}

/// Blocks exactly the signals of the set.
pub(crate) fn set_mask(set: Set) -> Result {
    const SIG_SETMASK: usize = 2;
    // SAFETY: the kernel reads one set.
    unsafe { call(nr::RT_SIGPROCMASK, [SIG_SETMASK, &raw const set as usize, 0, SET_SIZE]) }
}

/// Gives every signal its default disposition. An ignored one would be ignored by every child, too, and
/// children of a process that ignores SIGCHLD reap themselves.
pub(crate) fn default_dispositions() {
    // struct sigaction of the kernel: handler (SIG_DFL is 0), flags, restorer, mask.
    let action = [0_usize; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads one sigaction. SIGKILL and SIGSTOP are refused, which is as good.
        let _ = unsafe { call(nr::RT_SIGACTION, [signal, action.as_ptr() as usize, 0, SET_SIZE]) };
    }
}

/// A non-blocking descriptor that is readable while a signal of the set is pending.
pub(crate) fn signalfd(set: Set) -> Result<i32> {
    let args = [usize::MAX, &raw const set as usize, SET_SIZE, O_CLOEXEC | O_NONBLOCK];
    // SAFETY: the kernel reads one set.
    unsafe { call(nr::SIGNALFD4, args) }.map(|fd| fd as i32)
}

/// Waits for one signal of the set.
pub(crate) fn wait(set: Set) -> Result {
    // SAFETY: the kernel reads one set; neither information nor a timeout is given.
    unsafe { call(nr::RT_SIGTIMEDWAIT, [&raw const set as usize, 0, 0, SET_SIZE]) }
}
