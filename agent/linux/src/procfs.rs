//! The procfs of a pid namespace the program is not in.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::fs::{AtFlags, CWD, PROC_SUPER_MAGIC, Stat, fstatfs, statat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

/// The thread makes some ten system calls.
const STACK: usize = 64 * 1024;

/// A detached copy of the procfs that the process `pidfd` sees at /proc, without what is mounted below it.
///
/// A new instance could only be made by a process inside the pid namespace, where it would be visible to those
/// it is made for. A mount is copied only by who is in its mount namespace, so a thread is made that enters it,
/// and ends. Whatever else the process may have mounted there is refused.
///
/// # Errors
/// `ESRCH` when the process has ended, and what `setns(2)` and `open_tree(2)` say. An error in words when what is
/// at /proc is not the procfs of the process's pid namespace.
pub fn procfs_of(pidfd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    thread::scope(|scope| {
        let maker = thread::Builder::new().name("procfs-copy".to_owned()).stack_size(STACK);
        let made = maker.spawn_scoped(scope, move || copy(pidfd))?.join();
        made.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

fn copy(pidfd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // By the host's procfs, which is not to be seen from where the thread goes.
    let own = File::open("/proc/thread-self/ns")?;
    // setns(2): a thread that shares root and working directory with others enters no mount namespace.
    crate::namespace::unshare(libc::CLONE_FS)?;
    move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::PROCESS_ID)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let proc = open_tree(CWD, "/proc", flags)?;
    if fstatfs(&proc)?.f_type != PROC_SUPER_MAGIC {
        return Err(io::Error::other("what it has at /proc is no procfs"));
    }
    // Its first process is that of the namespace which children of this thread would be in.
    let joined = statat(own.as_fd(), "pid_for_children", AtFlags::empty())?;
    let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
    // Nobody may look at the first process of another one who has not its privileges.
    match statat(&proc, "1/ns/pid", AtFlags::empty()) {
        Ok(first) if identity(first) == identity(joined) => Ok(proc),
        Ok(_) | Err(Errno::ACCESS) => {
            Err(io::Error::other("the procfs it has at /proc is that of another pid namespace"))
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use rustix::fs::{Mode, OFlags, openat};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    /// A process that is the first of a pid namespace; the one outside ends it.
    struct First {
        outside: Child,
        pidfd: OwnedFd,
    }

    impl First {
        /// With a procfs of its own at /proc, or with what is there anyway.
        fn new(mount: bool) -> Self {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--mount", "--fork", "--kill-child"]);
            command.args(mount.then_some("--mount-proc")).args(["sleep", "1000"]);
            let outside = command.spawn().unwrap();
            let pidfd = pidfd_open(child_of(outside.id()), PidfdFlags::empty()).unwrap();
            Self { outside, pidfd }
        }

        /// Ends the process, of which nothing can be copied any more.
        fn end(mut self) {
            self.outside.kill().unwrap();
            let _ = self.outside.wait();
            let end = Instant::now() + Duration::from_secs(20);
            while procfs_of(self.pidfd.as_fd()).is_ok() {
                assert!(Instant::now() < end, "a process that ended still has a procfs");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The child of a process, once it is the program: by then it has what it is to have mounted.
    fn child_of(pid: u32) -> Pid {
        let children = format!("/proc/{pid}/task/{pid}/children");
        let end = Instant::now() + Duration::from_secs(20);
        let is_ready =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
        loop {
            let found = fs::read_to_string(&children).unwrap();
            let child = found.split_whitespace().next().and_then(|pid| pid.parse().ok()).filter(is_ready);
            if let Some(child) = child.and_then(Pid::from_raw) {
                return child;
            }
            assert!(Instant::now() < end, "no process in the new pid namespace");
            thread::sleep(Duration::from_millis(5));
        }
    }

    impl Drop for First {
        fn drop(&mut self) {
            let _ = self.outside.kill();
            let _ = self.outside.wait();
        }
    }

    #[test]
    fn the_copy_is_the_procfs_of_the_process_and_no_other() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: making a pid namespace needs root");
            return;
        }
        let own = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let first = First::new(true);
        let proc = procfs_of(first.pidfd.as_fd()).unwrap();
        let name = openat(&proc, "1/comm", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert_eq!(io::read_to_string(File::from(name)).unwrap(), "sleep\n");
        // One that sees another's does not show it.
        let other = First::new(false);
        let error = procfs_of(other.pidfd.as_fd()).unwrap_err();
        assert!(error.to_string().contains("another pid namespace"), "{error}");
        first.end();
        assert_eq!(fs::read_link("/proc/thread-self/ns/mnt").unwrap(), own, "this thread went nowhere");
    }
}
