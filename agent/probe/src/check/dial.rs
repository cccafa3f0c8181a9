//! Connections to targets.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;

use crate::error::Error;
use crate::node::{Endpoint, Node, Target};

/// A pod without an address as a target: its own loopback; the host's where it uses the host's network.
pub(crate) const POD: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Asked when nobody listens on [`POD`]: a server may serve IPv6 alone.
const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The host that is meant: the one that is named or, as in the kubelet, the pod by its address.
pub(crate) fn host<'a, N: Node>(node: &N, target: &Target, named: Option<&'a str>) -> Option<Cow<'a, str>> {
    // An empty one is none, as in Kubernetes.
    let named = named.filter(|host| !host.is_empty()).map(Cow::Borrowed);
    named.or_else(|| node.pod_address(target).map(|address| Cow::Owned(address.to_string())))
}

/// Connects to a host or, where there is none, to the pod by its loopback.
///
/// A host is connected to from the node, as the kubelet does it, so that `localhost` is the node's.
pub(crate) async fn connect<N: Node>(
    node: &N,
    target: &Target,
    host: Option<&str>,
    port: u16,
) -> Result<TcpStream, Error> {
    let Some(host) = host else {
        return connect_to_pod(node, target, port).await;
    };
    if let Some(address) = literal(host) {
        return connect_to(node, target, Endpoint::Network(SocketAddr::new(address, port))).await;
    }
    let lookup = |source| Error::Lookup { host: host.to_owned(), source };
    let mut first_error = None;
    for address in coracle_fetch::lookup(host, port).await.map_err(lookup)? {
        match connect_to(node, target, Endpoint::Network(address)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| lookup(io::Error::other("no such host"))))
}

async fn connect_to_pod<N: Node>(node: &N, target: &Target, port: u16) -> Result<TcpStream, Error> {
    let first = connect_to(node, target, Endpoint::Pod(SocketAddr::new(POD, port))).await;
    match &first {
        Err(Error::Connect { source, .. }) if source.kind() == io::ErrorKind::ConnectionRefused => {
            // What is wrong with an address that may not be there is of no interest.
            connect_to(node, target, Endpoint::Pod(SocketAddr::new(POD_V6, port))).await.or(first)
        }
        _ => first,
    }
}

async fn connect_to<N: Node>(node: &N, target: &Target, endpoint: Endpoint) -> Result<TcpStream, Error> {
    let (Endpoint::Pod(address) | Endpoint::Network(address)) = endpoint;
    node.connect(target, endpoint).await.map_err(|source| Error::Connect { address, source })
}

/// An IP address, in brackets or without.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// A host and a port as in a URL.
pub(crate) fn join(host: Option<&str>, port: u16) -> String {
    match host {
        None => SocketAddr::new(POD, port).to_string(),
        Some(host) => match literal(host) {
            Some(address) => SocketAddr::new(address, port).to_string(),
            None => format!("{host}:{port}"),
        },
    }
}
