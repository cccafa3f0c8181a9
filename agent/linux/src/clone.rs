//! `clone(2)` of a single-threaded program, with its parent as the child's parent.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
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

/// The threads of this process, to be counted where a seccomp filter leaves little to ask with.
#[derive(Debug)]
pub struct OwnThreads {
    /// /proc/self/task, whose link count is that of its entries and two more.
    directory: OwnedFd,
}

// === impl OwnThreads ===

impl OwnThreads {
    /// Opens /proc/self/task. Fails with `ENOTSUP` where that is not of a procfs.
    pub fn open() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open("/proc/self/task", flags, Mode::empty())?;
        // The type is a signed long on some targets and the constant unsigned.
        if rustix::fs::fstatfs(&directory)?.f_type as u64 != rustix::fs::PROC_SUPER_MAGIC as u64 {
            return Err(Errno::NOTSUP);
        }
        Ok(Self { directory })
    }

    /// Whether the calling thread is the only one.
    pub fn is_one(&self) -> Result<bool, Errno> {
        Ok(rustix::fs::fstat(&self.directory)?.st_nlink == 3)
    }
}

/// Clones the calling process as `fork` does, but the child's parent is the caller's parent, which gets
/// SIGCHLD when it ends. The child is born in the pid namespace that `setns` chose for children.
///
/// Fails with `EINVAL` in a program that has more than one thread: the child would inherit locks whose
/// holders it has not. Makes no system call that container runtimes' default seccomp profiles refuse.
pub fn clone_sibling(threads: &OwnThreads) -> Result<Cloned, Errno> {
    if !threads.is_one()? {
        return Err(Errno::INVAL);
    }
    // The old call, not clone3: seccomp profiles can look at its flags, so they do not refuse it whole.
    // SAFETY: without CLONE_VM the child has its own copy of all memory, with a null stack it goes on on
    // its copy of this one, and no other thread exists that could hold a lock.
    let result = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0) };
    match Pid::from_raw(crate::errno::check(result)? as i32) {
        None => Ok(Cloned::Child),
        Some(child) => Ok(Cloned::Caller(child)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_threads_is_not_cloned() {
        let threads = OwnThreads::open().unwrap();
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || told.recv());
        assert!(!threads.is_one().unwrap());
        assert_eq!(clone_sibling(&threads), Err(Errno::INVAL));
        drop(tell);
        let _ = other.join();
    }
}
