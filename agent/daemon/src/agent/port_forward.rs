//! Connecting to a port on a pod's loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use coracle_sandbox::Runtime;
use coracle_server::{ForwardError, Forwarded, PortForwardRequest};
use futures_util::FutureExt;

use super::dial::connect_in;

/// Connects to `localhost` inside the pod: by IPv4 and, where that fails, by IPv6, as containerd does.
pub(super) async fn connect(
    runtime: Runtime,
    request: PortForwardRequest,
) -> Result<Forwarded, ForwardError> {
    let PortForwardRequest { pod, port } = request;
    let failed = |error: coracle_sandbox::Error| ForwardError(error.to_string());
    let inside = runtime.in_network(&pod.uid).map_err(failed)?;
    let gone = runtime.sandbox_end(&pod.uid).map_err(failed)?;
    let mut gone = Box::pin(gone);
    let connecting = async {
        let by = async |host: IpAddr| connect_in(inside.as_fd(), SocketAddr::new(host, port)).await;
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
