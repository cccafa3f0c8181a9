//! Work in network namespaces the program is not in.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

/// How long a thread waits for memory that it needs to find back.
const RETRY: Duration = Duration::from_millis(1);

/// Does a piece of work in another network namespace, and comes back: what it opens there (a socket, a file of
/// `/proc/sys/net`) belongs to that namespace, wherever it is used later.
///
/// `of` is an open `/proc/<pid>/ns/net`, or a pidfd, for the namespace its process is in. `setns(2)` moves one thread
/// alone: the calling one, which is back in the namespace it was in when this returns or unwinds, so that no later
/// work can meet it in the wrong place. The work must wait for nothing but the kernel.
///
/// # Errors
/// `EINVAL` when `of` is neither, `ESRCH` when its process has ended, `EPERM` without `CAP_SYS_ADMIN`. Then nothing was
/// done.
pub fn in_network_namespace<T>(of: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    static MAY_RETURN: AtomicBool = AtomicBool::new(false);

    // A pidfd of the program would name the namespace of its first thread, which may be this one.
    let own = OwnedFd::from(File::open("/proc/thread-self/ns/net")?);
    // Whoever may enter the other namespace may not enter this one where another user namespace owns it.
    if !MAY_RETURN.load(Ordering::Relaxed) {
        enter(own.as_fd())?;
        MAY_RETURN.store(true, Ordering::Relaxed);
    }
    let back = Back(own);
    enter(of)?;
    let done = work();
    drop(back);
    Ok(done)
}

/// Returns when dropped.
struct Back(OwnedFd);

impl Drop for Back {
    fn drop(&mut self) {
        // What has been possible before can fail for want of memory alone, which passes.
        while enter(self.0.as_fd()).is_err() {
            thread::sleep(RETRY);
        }
    }
}

fn enter(of: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_thread_name_spaces(of, ThreadNameSpaceType::NETWORK)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_sysctl_written_inside_is_that_of_the_namespace() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: making a network namespace needs root");
            return;
        }
        let path = "/proc/sys/net/ipv4/ip_default_ttl";
        let make = || {
            // Of this thread alone, which ends at once.
            crate::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let netns = thread::scope(|scope| scope.spawn(make).join()).unwrap();
        let here = fs::read_to_string(path).unwrap();
        in_network_namespace(netns.as_fd(), || fs::write(path, "71")).unwrap().unwrap();
        let there = in_network_namespace(netns.as_fd(), || fs::read_to_string(path)).unwrap().unwrap();
        assert_eq!(there.trim(), "71");
        assert_eq!(fs::read_to_string(path).unwrap(), here);
    }

    #[test]
    fn a_thread_comes_back_to_where_it_was_and_not_to_where_the_program_began() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: entering a network namespace needs root");
            return;
        }
        let work = || {
            crate::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
            let other = File::open(format!("/proc/{}/ns/net", std::process::id())).unwrap();
            in_network_namespace(other.as_fd(), || ()).unwrap();
            assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), own);
        };
        thread::scope(|scope| scope.spawn(work).join()).unwrap();
    }

    #[test]
    fn a_thread_that_unwinds_comes_back() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: entering a network namespace needs root");
            return;
        }
        let make = || {
            // Of this thread alone, which ends at once.
            crate::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let netns = thread::scope(|scope| scope.spawn(make).join()).unwrap();
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let work = || in_network_namespace(netns.as_fd(), || panic!("of the test"));
        let unwound: Result<io::Result<()>, _> = std::panic::catch_unwind(work);
        assert!(unwound.is_err());
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), own);
    }
}
