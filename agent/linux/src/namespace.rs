//! `unshare(2)` for the namespaces that are safe to leave.

use rustix::io::Errno;

/// Moves the calling thread into a mount namespace of its own, a copy of the one it is in.
pub fn unshare_mount_namespace() -> Result<(), Errno> {
    unshare(libc::CLONE_NEWNS)
}

/// Moves the calling thread into a cgroup namespace whose roots are the cgroups it is in.
pub fn unshare_cgroup_namespace() -> Result<(), Errno> {
    unshare(libc::CLONE_NEWCGROUP)
}

/// Moves the calling thread into a network namespace of its own, with nothing in it but a loopback interface.
pub fn unshare_network_namespace() -> Result<(), Errno> {
    unshare(libc::CLONE_NEWNET)
}

pub(crate) fn unshare(flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: only namespaces are unshared; neither memory nor the descriptor table is.
    crate::errno::check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}
