//! One attempt of a probe.

mod dial;
mod exec;
mod grpc;
mod http;
mod tcp;

use std::time::Duration;

use coracle_model::{Container, Handler, PortRef};
use tokio::time::Instant;

pub(crate) use dial::literal;
pub(crate) use exec::timed_out;
pub(crate) use http::{Stop, get};

use crate::error::Error;
use crate::node::{Node, Target};
use crate::tls::Tls;

/// What one attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Success,
    /// It counts as success, and people should look at it.
    Warning(String),
    /// The target is not well, did not answer in time or is not there.
    Failure(String),
    /// Nothing is known of the target: the attempt itself could not be made. Counts for nothing.
    Unknown(String),
}

/// What attempts share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Checker {
    pub(crate) tls: Tls,
}

/// The longest an attempt takes, and until when.
#[derive(Clone, Copy, Debug)]
struct Limit {
    timeout: Duration,
    deadline: Instant,
}

// === impl Checker ===

impl Checker {
    /// Prepares for attempts.
    ///
    /// # Errors
    /// [`Error::Tls`] when TLS has no cipher to offer.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { tls: Tls::new()? })
    }
}

// === impl Limit ===

impl Limit {
    fn starting_now(timeout: Duration) -> Self {
        Self { timeout, deadline: Instant::now() + timeout }
    }
}

/// Asks the target once, for at most `timeout`.
pub async fn attempt<N: Node>(
    checker: &Checker,
    node: &N,
    target: &Target,
    handler: &Handler,
    timeout: Duration,
) -> Outcome {
    let limit = Limit::starting_now(timeout);
    let Some(container) = target.pod.container(target.container.as_str()) else {
        return Outcome::Unknown(format!("the pod has no container {}", target.container));
    };
    match handler {
        Handler::Exec(command) => exec::check(node, target, container, command, limit).await,
        Handler::HttpGet(spec) => http::check(checker, node, target, container, spec, limit).await,
        Handler::TcpSocket(spec) => tcp::check(node, target, container, spec, limit).await,
        Handler::Grpc(spec) => grpc::check(node, target, spec, limit).await,
        Handler::Sleep(_) => Outcome::Unknown("a wait is no probe".to_owned()),
    }
}

/// The number of a port.
pub(crate) fn port(port: &PortRef, container: &Container) -> Result<u16, Error> {
    match (port.resolve(container), port) {
        (Some(number), _) => Ok(number),
        (None, PortRef::Name(name)) => Err(Error::UnknownPort(name.clone())),
        (None, PortRef::Number(number)) => Err(Error::UnknownPort(number.to_string())),
    }
}
