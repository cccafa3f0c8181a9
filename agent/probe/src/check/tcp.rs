//! `tcpSocket`: a connection that is opened.
//!
//! It is closed at once, in an orderly way: a server sees the end of its input. The kubelet sets
//! `SO_LINGER` to one second on its sockets to shorten `TIME_WAIT`. Linux does not shorten it for that (only
//! zero, a reset, avoids it, and servers log resets), but lets `close(2)` block until the peer has answered,
//! which a task must not; so it is not set. In each pod's network there are the sockets of its own probes,
//! for a minute each, and on loopback Linux uses their ports again after a second.

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
    let host = spec.host.as_deref();
    match timeout_at(limit.deadline, dial::connect(node, target, host, port)).await {
        Ok(Ok(_connection)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(error.to_string()),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", dial::join(host, port))),
    }
}
