//! Errors as Kubernetes' API gives them: `metav1.Status` in JSON with the matching HTTP code.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::ExecExit;

/// Why a request was not, or not successfully, done: `metav1.Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// `Status`.
    pub kind: String,
    /// `v1`.
    pub api_version: String,
    /// Empty, always there.
    pub metadata: StatusMetadata,
    /// Whether it was done.
    pub status: Outcome,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// CamelCase.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Machine-readable parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<StatusDetails>>,
    /// The HTTP code; 0 for success.
    #[serde(skip_serializing_if = "is_zero")]
    pub code: u16,
}

/// `metav1.ListMeta`, of which nothing is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusMetadata {}

/// `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was not.
    #[default]
    Failure,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusDetails {
    /// The object it is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The object's resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Each single cause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    /// The type of the cause, such as `ExitCode`.
    pub reason: String,
    /// Its value.
    pub message: String,
}

/// `reason` of an exec whose program ended with another code than 0.
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
/// Type of the cause that carries the code.
const EXIT_CODE: &str = "ExitCode";

// `skip_serializing_if` passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(code: &u16) -> bool {
    *code == 0
}

// === impl Status ===

impl Status {
    fn new(status: Outcome, code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            status,
            message: message.into(),
            reason: reason.to_owned(),
            code,
            ..Self::default()
        }
    }

    /// A failure with HTTP code and reason.
    pub fn failure(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self::new(Outcome::Failure, code.as_u16(), reason, message)
    }

    /// The request cannot be done as it is.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// Whether it is that there is nothing of that name.
    pub fn is_not_found(&self) -> bool {
        self.code == StatusCode::NOT_FOUND.as_u16()
    }

    /// There is no pod of that name.
    pub fn pod_not_found(name: &str) -> Self {
        Self::not_found("pods", name)
    }

    /// There is nothing of that name among the resources of that kind, such as `pods`.
    pub fn not_found(resource: &str, name: &str) -> Self {
        let details = StatusDetails { name: name.to_owned(), kind: resource.to_owned(), causes: Vec::new() };
        let status =
            Self::failure(StatusCode::NOT_FOUND, "NotFound", format!("{resource} {name:?} not found"));
        Self { details: Some(Box::new(details)), ..status }
    }

    /// Something went wrong on the node.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {error}"),
        )
    }

    /// How an exec'd program ended.
    pub fn exit(exit: ExecExit) -> Self {
        if exit.code == 0 {
            return Self::new(Outcome::Success, 0, "", "");
        }
        let cause = StatusCause { reason: EXIT_CODE.to_owned(), message: exit.code.to_string() };
        let message = format!("command terminated with non-zero exit code: {}", exit.code);
        Self {
            details: Some(Box::new(StatusDetails { causes: vec![cause], ..StatusDetails::default() })),
            ..Self::new(Outcome::Failure, 0, NON_ZERO_EXIT_CODE, message)
        }
    }

    /// The exit code it carries: 0 of a success, `None` when it tells of another failure.
    pub fn exit_code(&self) -> Option<i32> {
        if self.status == Outcome::Success {
            return Some(0);
        }
        if self.reason != NON_ZERO_EXIT_CODE {
            return None;
        }
        let cause = self.details.as_ref()?.causes.iter().find(|cause| cause.reason == EXIT_CODE)?;
        cause.message.parse().ok()
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // A struct of strings and numbers always encodes.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_travel_as_kubernetes_writes_them() {
        let status = Status::exit(ExecExit { code: 3 });
        let json: serde_json::Value = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(json["reason"], "NonZeroExitCode");
        assert_eq!(json["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(json["details"]["causes"][0]["message"], "3");
        assert_eq!(status.exit_code(), Some(3));
        assert_eq!(Status::exit(ExecExit { code: 0 }).exit_code(), Some(0));
        assert_eq!(Status::internal("no").exit_code(), None);
        // What other servers send: fields missing, others added.
        let foreign: Status =
            serde_json::from_str(r#"{"metadata":{"x":1},"status":"Success","more":[]}"#).unwrap();
        assert_eq!(foreign.exit_code(), Some(0));
    }

    #[test]
    fn a_missing_pod_is_named_as_the_api_server_names_it() {
        let status = Status::pod_not_found("web");
        assert_eq!(status.to_string(), "pods \"web\" not found");
        assert_eq!(status.code, 404);
    }
}
