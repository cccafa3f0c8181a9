//! Sockets of network namespaces the program is not in.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::in_network_namespace;

/// Makes a socket that belongs to another network namespace: close-on-exec and non-blocking, to be connected or
/// bound like any other, by any thread.
///
/// `of` is an open `/proc/<pid>/ns/net`, or a pidfd, for the namespace its process is in. Waits for no network: it
/// takes some microseconds.
///
/// A socket stays for its whole life in the namespace of the thread that made it: the calling thread enters the
/// namespace for that one system call.
///
/// # Errors
/// As [`in_network_namespace`], and what `socket(2)` says.
pub fn socket_in_namespace(
    of: BorrowedFd<'_>,
    domain: AddressFamily,
    kind: SocketType,
) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(in_network_namespace(of, || socket_with(domain, kind, flags, None))??)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::thread;

    use rustix::net::{SocketAddrUnix, bind, connect, listen};
    use rustix::process::{PidfdFlags, pidfd_open};

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
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), own, "this thread came back");
    }

    #[test]
    fn a_process_names_the_namespace_it_is_in_until_it_ends() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: making a network namespace needs root");
            return;
        }
        let mut inside = std::process::Command::new("unshare");
        inside.args(["--net", "cat"]);
        let mut inside = inside.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(inside.id().cast_signed()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{}/ns/net", inside.id())).unwrap() == own {
            thread::yield_now();
        }
        let make = || socket_in_namespace(pidfd.as_fd(), AddressFamily::INET, SocketType::STREAM);
        let socket = make().unwrap();
        // Nobody has brought that loopback up.
        let nobody = rustix::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1);
        assert_eq!(connect(&socket, &nobody), Err(rustix::io::Errno::NETUNREACH));
        drop(inside.stdin.take());
        inside.wait().unwrap();
        assert_eq!(make().unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), own, "this thread came back");
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
