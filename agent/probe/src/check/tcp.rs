//! `tcpSocket`: a connection that is opened.
//!
//! It is closed at once, in an orderly way: a server sees the end of its input. The kubelet sets
//! `SO_LINGER` to one second on its sockets to shorten `TIME_WAIT`. Linux does not shorten it for that (only
//! zero, a reset, avoids it, and servers log resets), but lets `close(2)` block until the peer has answered,
//! which a task must not; so it is not set. What is left of it for a minute is in nobody's way: to each pod's port there
//! are all ports to connect from.

use coracle_model::{Container, TcpSocket};
use tokio::time::timeout_at;

use super::{Limit, Outcome, dial, port};
use crate::node::{Node, Target};

pub(super) async fn check<N: Node>(
    node: &N,
    target: &Target,
    container: &Container,
    spec: &TcpSocket,
    limit: Limit,
) -> Outcome {
    let port = match port(&spec.port, container) {
        Ok(port) => port,
        Err(error) => return Outcome::Unknown(error.to_string()),
    };
    let host = dial::host(node, target, spec.host.as_deref());
    let host = host.as_deref();
    match timeout_at(limit.deadline, dial::connect(node, target, host, port)).await {
        Ok(Ok(_connection)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(error.to_string()),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", dial::join(host, port))),
    }
}
