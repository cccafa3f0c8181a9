//! What exec and attach have in common: a running container, the streams that are wanted, a WebSocket.

use std::future::Future;
use std::sync::Arc;

use axum::response::Response;
use coracle_model::{ContainerId, ContainerState, Pod};

use super::find;
use crate::remote_command::run;
use crate::websocket::Upgrade;
use crate::{ExecError, ExecSession, Node, Status};

/// Which container: namespace, pod, the pod's UID where one is given, container.
pub(super) type Named<'a> = (&'a str, &'a str, Option<&'a str>, &'a str);

/// The container of that name, which runs.
pub(super) fn running(
    node: &dyn Node,
    (namespace, pod, uid, container): Named<'_>,
) -> Result<(Arc<Pod>, ContainerId), Status> {
    let entry = find(node, namespace, pod, uid)?;
    if entry.pod.container(container).is_none() {
        return Err(Status::bad_request(format!("container {container} is not valid for pod {pod}")));
    }
    let mut statuses = entry.status.all_containers();
    let running = statuses
        .find(|status| status.name == container)
        .filter(|status| matches!(status.state, ContainerState::Running(_)))
        .and_then(|status| status.container_id);
    let id = running.ok_or_else(|| Status::internal(ExecError::NotRunning(container.to_owned())))?;
    Ok((entry.pod, id))
}

/// The streams a query asks for, by the kubelet's names and by those of `v1 PodExecOptions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// Accepts the WebSocket, and runs the session that `starting` gives once it is there.
pub(super) fn serve<S>(upgrade: Upgrade, doing: &'static str, starting: S) -> Response
where
    S: Future<Output = Result<ExecSession, ExecError>> + Send + 'static,
{
    let (response, socket) = upgrade.accept();
    tokio::spawn(async move {
        match socket.await {
            Ok(socket) => run(socket, doing, starting).await,
            Err(error) => tracing::debug!(%error, "a client left before its streams began"),
        }
    });
    response
}

// === impl Streams ===

impl Streams {
    pub(super) fn parse(pairs: &[(String, String)]) -> Result<Self, Status> {
        let mut streams = Self::default();
        for (key, value) in pairs {
            let set = matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
            match key.as_str() {
                "input" | "stdin" => streams.stdin = set,
                "output" | "stdout" => streams.stdout = set,
                "error" | "stderr" => streams.stderr = set,
                "tty" => streams.tty = set,
                _ => {}
            }
        }
        if !(streams.stdin || streams.stdout || streams.stderr) {
            return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        Ok(streams)
    }
}
