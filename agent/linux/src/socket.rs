//! Sockets of network namespaces the program is not in.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The thread makes two system calls.
const STACK: usize = 64 * 1024;

/// Makes a socket that belongs to the network namespace `netns`: close-on-exec and non-blocking, to be
/// connected or bound like any other, by any thread.
///
/// `netns` is an open `/proc/<pid>/ns/net`. Waits for no network: it takes some ten microseconds.
///
/// A socket stays for its whole life in the namespace of the thread that made it, and `setns(2)` moves
/// one thread alone. So a thread is made for each socket, enters the namespace, and ends: it never has
/// to find its way back, and no later work can meet a thread that is in the wrong place.
///
/// # Errors
/// `EINVAL` when `netns` is no network namespace, `EPERM` without `CAP_SYS_ADMIN`, and what `socket(2)`
/// and the making of a thread say.
pub fn socket_in_namespace(
    netns: BorrowedFd<'_>,
    domain: AddressFamily,
    kind: SocketType,
) -> io::Result<OwnedFd> {
    thread::scope(|scope| {
        let make = move || -> io::Result<OwnedFd> {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(socket_with(domain, kind, flags, None)?)
        };
        let maker = thread::Builder::new().name("netns-socket".to_owned()).stack_size(STACK);
        maker
            .spawn_scoped(scope, make)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use rustix::net::{SocketAddrUnix, bind, connect, listen};

    use super::*;

    #[test]
    fn a_socket_belongs_to_the_namespace_it_was_asked_for() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: making a network namespace needs root");
            return;
        }
        // Abstract addresses are a network namespace's own.
        let address = SocketAddrUnix::new_abstract_name(b"coracle-linux-socket-test").unwrap();
        let inside = || {
            // Of this thread alone, which ends at once.
            crate::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
            let listener = listener.unwrap();
            bind(&listener, &address).unwrap();
            listen(&listener, 1).unwrap();
            (File::open("/proc/thread-self/ns/net").unwrap(), listener)
        };
        let (netns, _listener) = thread::scope(|scope| scope.spawn(inside).join()).unwrap();

        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let socket = socket_in_namespace(netns.as_fd(), AddressFamily::UNIX, SocketType::STREAM).unwrap();
        connect(&socket, &address).unwrap();
        let outside =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        assert_eq!(connect(&outside, &address), Err(rustix::io::Errno::CONNREFUSED));
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), own, "this thread went nowhere");
    }

    #[test]
    fn what_is_no_network_namespace_is_refused() {
        for path in ["/proc/self/ns/uts", "/dev/null"] {
            let other = File::open(path).unwrap();
            let made = socket_in_namespace(other.as_fd(), AddressFamily::INET, SocketType::STREAM);
            assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EINVAL), "{path}");
        }
    }
}
