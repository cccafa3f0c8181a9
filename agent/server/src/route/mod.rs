//! The paths of the API.

mod attach;
mod configs;
mod ephemeral;
mod events;
mod exec;
mod logs;
mod nodes;
mod pods;
mod port_forward;
mod remote_command;
mod watch;

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use hyper::StatusCode;

use crate::{Node, PodEntry, Socket, Status};

type Shared = Arc<dyn Node>;

/// Serves the API of `node` on `socket` until `shutdown` resolves. Requests that are under way then go on
/// until the runtime ends.
///
/// # Errors
///
/// When the socket can no longer be listened on.
pub async fn serve(
    socket: Socket,
    node: Arc<dyn Node>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    tokio::select! {
        outcome = async { axum::serve(socket, router(node)).await } => outcome,
        () = shutdown => Ok(()),
    }
}

fn router(node: Shared) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/healthz/ping", get(|| async { "ok" }))
        .route("/configz", get(configz))
        .route("/pods", get(pods::list))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::get))
        .route("/exec/{namespace}/{pod}/{container}", get(exec::get))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", get(exec::get_with_uid))
        .route("/attach/{namespace}/{pod}/{container}", get(attach::get))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", get(attach::get_with_uid))
        .route("/portForward/{namespace}/{pod}", get(port_forward::get))
        .route("/portForward/{namespace}/{pod}/{uid}", get(port_forward::get_with_uid))
        .route("/coracle/v1/ephemeralcontainers/{namespace}/{pod}", post(ephemeral::add))
        .route("/coracle/v1/events", get(events::list))
        .route("/coracle/v1/configmaps", get(configs::config_maps))
        .route("/coracle/v1/secrets", get(configs::secrets))
        .route("/coracle/v1/nodes", get(nodes::list))
        .route("/coracle/v1/problems", get(problems))
        .fallback(|| async {
            Status::failure(
                StatusCode::NOT_FOUND,
                "NotFound",
                "the server could not find the requested resource",
            )
        })
        .method_not_allowed_fallback(|| async {
            Status::failure(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )
        })
        .with_state(node)
}

/// As the kubelet's: usable again as its file.
async fn configz(State(node): State<Shared>) -> impl IntoResponse {
    axum::Json(serde_json::json!({"kubeletconfig": node.configuration()}))
}

async fn problems(State(node): State<Shared>) -> impl IntoResponse {
    axum::Json(node.problems())
}

/// The pod of that name and, where one is given, of that UID.
fn find(node: &dyn Node, namespace: &str, pod: &str, uid: Option<&str>) -> Result<PodEntry, Status> {
    let mut pods = node.pods().into_iter();
    pods.find(|entry| entry.pod.key.namespace == namespace && entry.pod.key.name == pod)
        .filter(|entry| uid.is_none_or(|uid| uid == entry.pod.uid.as_str()))
        .ok_or_else(|| Status::pod_not_found(pod))
}

/// The decoded pairs of a query.
fn pairs(query: &str) -> Result<Vec<(String, String)>, Status> {
    crate::query::pairs(query)
        .ok_or_else(|| Status::bad_request("the query is not valid percent-encoded UTF-8"))
}
