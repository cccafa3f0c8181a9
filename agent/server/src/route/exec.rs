//! `/exec/{namespace}/{pod}/{container}`: a program in a running container, over a WebSocket.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use coracle_model::ContainerState;

use super::{Shared, find, pairs};
use crate::remote_command::run;
use crate::websocket::Upgrade;
use crate::{ExecError, ExecRequest, Status};

pub(super) async fn get(
    State(node): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Status> {
    exec(node, (&namespace, &pod, &container), None, query.as_deref(), request)
}

pub(super) async fn get_with_uid(
    State(node): State<Shared>,
    Path((namespace, pod, uid, container)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Status> {
    exec(node, (&namespace, &pod, &container), Some(&uid), query.as_deref(), request)
}

fn exec(
    node: Shared,
    (namespace, pod, container): (&str, &str, &str),
    uid: Option<&str>,
    query: Option<&str>,
    request: Request,
) -> Result<Response, Status> {
    let entry = find(&*node, namespace, pod, uid)?;
    if entry.pod.container(container).is_none() {
        return Err(Status::bad_request(format!("container {container} is not valid for pod {pod}")));
    }
    let mut statuses = entry.status.init_container_statuses.iter().chain(&entry.status.container_statuses);
    let running = statuses
        .find(|status| status.name == container)
        .filter(|status| matches!(status.state, ContainerState::Running(_)))
        .and_then(|status| status.container_id);
    let Some(container_id) = running else {
        return Err(Status::internal(ExecError::NotRunning(container.to_owned())));
    };
    let options = Options::parse(query.unwrap_or_default())?;
    let upgrade = Upgrade::of("exec", request)?;
    let program = ExecRequest {
        pod: Arc::clone(&entry.pod),
        container: container.to_owned(),
        container_id,
        command: options.command,
        stdin: options.stdin,
        stdout: options.stdout,
        // A terminal has one output.
        stderr: options.stderr && !options.tty,
        tty: options.tty,
    };
    let (response, socket) = upgrade.accept();
    tokio::spawn(async move {
        match socket.await {
            Ok(socket) => run(socket, "executing command in container", node.exec(program)).await,
            Err(error) => tracing::debug!(%error, "a client left before its exec began"),
        }
    });
    Ok(response)
}

/// The query, with the kubelet's names and those of `v1 PodExecOptions`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

// === impl Options ===

impl Options {
    fn parse(query: &str) -> Result<Self, Status> {
        let mut options = Self::default();
        for (key, value) in pairs(query)? {
            let set = matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
            match key.as_str() {
                "command" => options.command.push(value),
                "input" | "stdin" => options.stdin = set,
                "output" | "stdout" => options.stdout = set,
                "error" | "stderr" => options.stderr = set,
                "tty" => options.tty = set,
                _ => {}
            }
        }
        if options.command.is_empty() {
            return Err(Status::bad_request("you must specify at least one command for the container"));
        }
        if !(options.stdin || options.stdout || options.stderr) {
            return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_in_order_and_decoded() {
        let options =
            Options::parse("command=sh&command=-c&command=echo+a%26b%20%C3%A9&output=1&tty=true").unwrap();
        assert_eq!(options.command, ["sh", "-c", "echo a&b é"]);
        assert!(options.stdout && options.tty && !options.stdin && !options.stderr);
        assert!(Options::parse("output=1").unwrap_err().message.contains("at least one command"));
        assert!(Options::parse("command=a&output=0").unwrap_err().message.contains("at least 1 of"));
        assert!(Options::parse("command=%ff&output=1").is_err());
        assert!(Options::parse("command=%zz&output=1").is_err());
    }
}
