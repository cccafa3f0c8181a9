//! The network of a machine under test, from outside of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use coracle_linux::socket_in_namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, bind, connect, listen, recv, send, sockopt,
};

use crate::processes::Pid;

/// How long a connection on a loopback may take.
const LIMIT: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Connects from within the network namespace of a process.
///
/// # Errors
/// As `connect(2)`.
pub fn connect_from(pid: Pid, address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_of(pid, family, SocketType::STREAM)?;
    match connect(&socket, &address) {
        Err(Errno::INPROGRESS) => {
            poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&LIMIT))?;
            sockopt::socket_error(&socket)??;
        }
        connected => connected?,
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    // A test waits for a long time, but not for ever.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// Listens in the network namespace of a process.
///
/// # Errors
/// As `bind(2)` and `listen(2)`.
pub fn listen_in(pid: Pid, address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_of(pid, family, SocketType::STREAM)?;
    // Of a server before it, connections may still be closing.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, 16)?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(false)?;
    Ok(listener)
}

/// A UDP socket in the network namespace of a process.
///
/// # Errors
/// As `bind(2)`.
pub fn udp_in(pid: Pid, address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_of(pid, family, SocketType::DGRAM)?;
    bind(&socket, &address)?;
    let socket = UdpSocket::from(socket);
    socket.set_nonblocking(false)?;
    // A datagram that is lost does not come.
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

/// The interfaces of a process's network namespace.
pub fn interfaces(pid: Pid) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

/// Brings up the loopback of a process's network namespace, as every machine's is.
pub(crate) fn bring_loopback_up(pid: Pid) -> io::Result<()> {
    let netlink = socket_of(pid, AddressFamily::NETLINK, SocketType::RAW)?;
    // rtnetlink(7): RTM_NEWLINK, to be acknowledged; loopback is interface 1 of every network namespace.
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_AND_ACK: u16 = 1 | 4;
    const LOOPBACK: i32 = 1;
    const IFF_UP: u32 = 1;
    let mut message = Vec::new();
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_AND_ACK.to_ne_bytes());
    // Sequence and port.
    message.extend([0; 8]);
    // Family and type: any.
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    // The flag, and which flags are changed.
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    send(&netlink, &message, SendFlags::empty())?;
    poll(&mut [PollFd::new(&netlink, PollFlags::IN)], Some(&LIMIT))?;
    let mut answer = [0; 256];
    let (length, _) = recv(&netlink, &mut answer, RecvFlags::empty())?;
    // An error message with the number 0 is the acknowledgement.
    let errno = answer.get(16..20).filter(|_| length >= 20).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    match errno.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn socket_of(pid: Pid, family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    socket_in_namespace(namespace.as_fd(), family, kind)
}
