//! `/exec/{namespace}/{pod}/{container}`: a program in a running container, over a WebSocket.

use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;

use super::remote_command::{Named, Streams, running, serve};
use super::{Shared, pairs};
use crate::websocket::Upgrade;
use crate::{ExecRequest, Status};

pub(super) async fn get(
    State(node): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Status> {
    exec(node, (&namespace, &pod, None, &container), query.as_deref(), request)
}

pub(super) async fn get_with_uid(
    State(node): State<Shared>,
    Path((namespace, pod, uid, container)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Status> {
    exec(node, (&namespace, &pod, Some(&uid), &container), query.as_deref(), request)
}

fn exec(node: Shared, named: Named<'_>, query: Option<&str>, request: Request) -> Result<Response, Status> {
    let (pod, container_id) = running(&*node, named)?;
    let (command, streams) = options(query.unwrap_or_default())?;
    let upgrade = Upgrade::of("exec", request)?;
    let program = ExecRequest {
        pod,
        container: named.3.to_owned(),
        container_id,
        command,
        stdin: streams.stdin,
        stdout: streams.stdout,
        // A terminal has one output.
        stderr: streams.stderr && !streams.tty,
        tty: streams.tty,
    };
    Ok(serve(upgrade, "executing command in container", async move { node.exec(program).await }))
}

/// The query of `v1 PodExecOptions`: the command, and the streams.
fn options(query: &str) -> Result<(Vec<String>, Streams), Status> {
    let pairs = pairs(query)?;
    let words = pairs.iter().filter(|(key, _)| key == "command");
    let command: Vec<String> = words.map(|(_, word)| word.clone()).collect();
    if command.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    Ok((command, Streams::parse(&pairs)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_in_order_and_decoded() {
        let (command, streams) =
            options("command=sh&command=-c&command=echo+a%26b%20%C3%A9&output=1&tty=true").unwrap();
        assert_eq!(command, ["sh", "-c", "echo a&b é"]);
        assert_eq!(streams, Streams { stdout: true, tty: true, ..Streams::default() });
        assert!(options("output=1").unwrap_err().message.contains("at least one command"));
        assert!(options("command=a&output=0").unwrap_err().message.contains("at least 1 of"));
        assert!(options("command=%ff&output=1").is_err());
        assert!(options("command=%zz&output=1").is_err());
    }
}
