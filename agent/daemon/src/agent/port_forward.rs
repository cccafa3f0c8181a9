//! Connecting to a port on a pod's loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use coracle_linux::socket_in_namespace;
use coracle_sandbox::Runtime;
use coracle_server::{ForwardError, Forwarded, PortForwardRequest};
use futures_util::FutureExt;
use rustix::net::{AddressFamily, SocketType};
use tokio::net::{TcpSocket, TcpStream};

/// Connects to `localhost` inside the pod: by IPv4 and, where that fails, by IPv6, as containerd does.
pub(super) async fn connect(
    runtime: Runtime,
    request: PortForwardRequest,
) -> Result<Forwarded, ForwardError> {
    let PortForwardRequest { pod, port } = request;
    let failed = |error: coracle_sandbox::Error| ForwardError(error.to_string());
    let netns = runtime.network_namespace(&pod.uid).map_err(failed)?;
    let gone = runtime.sandbox_end(&pod.uid).map_err(failed)?;
    let mut gone = Box::pin(gone);
    let connecting = async {
        let by = async |host: IpAddr| by_address(netns.as_fd(), SocketAddr::new(host, port)).await;
        let v4 = match by(Ipv4Addr::LOCALHOST.into()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        by(Ipv6Addr::LOCALHOST.into()).await.map_err(|v6| {
            ForwardError(format!(
                "failed to connect to localhost:{port} inside the pod, IPv4: {v4} IPv6: {v6}"
            ))
        })
    };
    let stream = tokio::select! {
        connected = connecting => connected?,
        () = &mut gone => return Err(ForwardError("the pod has ended".to_owned())),
    };
    Ok(Forwarded { stream, gone: gone.boxed() })
}

async fn by_address(netns: BorrowedFd<'_>, address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_in_namespace(netns, family, SocketType::STREAM)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
