//! `clone(2)` of a single-threaded program, with its parent as the child's parent.

use rustix::io::Errno;
use rustix::process::Pid;

/// Which side of a clone this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloned {
    /// The caller; the child's pid in the caller's own pid namespace.
    Caller(Pid),
    /// The child.
    Child,
}

/// Clones the calling process as `fork` does, but the child's parent is the caller's parent, which gets
/// SIGCHLD when it ends. The child is born in the pid namespace that `setns` chose for children.
///
/// Fails with `EINVAL` in a program that has more than one thread: the child would inherit locks whose
/// holders it has not.
pub fn clone_sibling() -> Result<Cloned, Errno> {
    // unshare(2): CLONE_VM asks for nothing of a single-threaded program, and is refused to others.
    // SAFETY: it changes nothing.
    crate::errno::check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_VM) })?;
    // The old call, not clone3: seccomp profiles can look at its flags, so they do not refuse it whole.
    // SAFETY: without CLONE_VM the child has its own copy of all memory, with a null stack it goes on on
    // its copy of this one, and no other thread exists that could hold a lock.
    let result = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0) };
    match Pid::from_raw(crate::errno::check(result)? as i32) {
        None => Ok(Cloned::Child),
        Some(child) => Ok(Cloned::Caller(child)),
    }
}
