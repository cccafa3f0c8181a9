//! TCP connections from a pod's network namespace.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use coracle_linux::socket_in_namespace;
use rustix::net::{AddressFamily, SocketType};
use tokio::net::{TcpSocket, TcpStream};

/// Connects from within the network namespace of a process.
pub(super) async fn connect_in(pidfd: BorrowedFd<'_>, address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_in_namespace(pidfd, family, SocketType::STREAM)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
