//! `/attach/{namespace}/{pod}/{container}`: the streams of a running container, over a WebSocket.

use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;

use super::remote_command::{Named, Streams, running, serve};
use super::{Shared, pairs};
use crate::websocket::Upgrade;
use crate::{AttachRequest, Status};

pub(super) async fn get(
    State(node): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Status> {
    attach(node, (&namespace, &pod, None, &container), query.as_deref(), request)
}

pub(super) async fn get_with_uid(
    State(node): State<Shared>,
    Path((namespace, pod, uid, container)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Status> {
    attach(node, (&namespace, &pod, Some(&uid), &container), query.as_deref(), request)
}

fn attach(node: Shared, named: Named<'_>, query: Option<&str>, request: Request) -> Result<Response, Status> {
    let (pod, container_id) = running(&*node, named)?;
    let streams = Streams::parse(&pairs(query.unwrap_or_default())?)?;
    let upgrade = Upgrade::of("attach", request)?;
    // Whether there is a terminal was settled when the container was made, whatever the client says.
    let tty = pod.container(named.3).is_some_and(|container| container.tty);
    let container = AttachRequest {
        pod,
        container: named.3.to_owned(),
        container_id,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr && !tty,
    };
    Ok(serve(upgrade, "attaching to container", async move { node.attach(container).await }))
}
