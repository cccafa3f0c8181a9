//! `/coracle/v1/configmaps` and `/coracle/v1/secrets`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use coracle_manifest::encode;
use coracle_model::ConfigKind;
use serde_json::{Value, json};

use super::Shared;

/// A `v1 ConfigMapList`.
pub(super) async fn config_maps(State(node): State<Shared>) -> Response {
    list(&node, ConfigKind::ConfigMap)
}

/// A `v1 SecretList`, without the values.
pub(super) async fn secrets(State(node): State<Shared>) -> Response {
    list(&node, ConfigKind::Secret)
}

fn list(node: &Shared, kind: ConfigKind) -> Response {
    let configs = node.configs();
    let items: Vec<Value> = configs
        .iter()
        .filter(|object| object.key.kind == kind)
        .map(|object| encode::config(object))
        .collect();
    let list = format!("{}List", kind.as_str());
    Json(json!({"apiVersion": "v1", "kind": list, "metadata": {}, "items": items})).into_response()
}
