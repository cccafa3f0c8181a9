//! `/coracle/v1/ephemeralcontainers/{namespace}/{pod}`: adding an ephemeral container to a pod.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use coracle_manifest::{Diagnostic, decode_ephemeral};
use hyper::StatusCode;

use super::{Shared, find};
use crate::{EphemeralError, Status, object};

pub(super) async fn add(
    State(node): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
    body: Bytes,
) -> Result<impl IntoResponse, Status> {
    let entry = find(&*node, &namespace, &pod, None)?;
    let container =
        decode_ephemeral("request", &body, &entry.pod).map_err(|error| match error.diagnostics() {
            [] => Status::bad_request(error.to_string()),
            diagnostics => invalid(&pod, diagnostics.iter().map(words)),
        })?;
    node.add_ephemeral(entry.pod.clone(), container).await.map_err(|error| match error {
        EphemeralError::Gone => Status::pod_not_found(&pod),
        EphemeralError::Conflict(message) => Status::failure(StatusCode::CONFLICT, "Conflict", message),
        EphemeralError::Invalid(message) => invalid(&pod, [message]),
    })?;
    // Shown as it is by now: it may have gone already.
    let entry = find(&*node, &namespace, &pod, Some(entry.pod.uid.as_str()))?;
    Ok((StatusCode::CREATED, Json(object::pod(&entry, &*node))))
}

/// Where the fault is within the pod, and what it is: the place in the request's text nobody has seen.
fn words(diagnostic: &Diagnostic) -> String {
    format!("{}: {}", diagnostic.path, diagnostic.message)
}

fn invalid(pod: &str, faults: impl IntoIterator<Item = String>) -> Status {
    let mut faults: Vec<_> = faults.into_iter().collect();
    let all = match faults.len() {
        1 => faults.remove(0),
        _ => format!("[{}]", faults.join(", ")),
    };
    let message = format!("Pod {pod:?} is invalid: {all}");
    Status::failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
}
