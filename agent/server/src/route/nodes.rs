//! `/coracle/v1/nodes`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use coracle_model::ExtendedResource;
use serde_json::{Map, Value, json};

use super::Shared;
use crate::node::{Amounts, NodeStatus};

/// A `v1 NodeList` of this node.
pub(super) async fn list(State(node): State<Shared>) -> Response {
    let item = object(node.name(), &node.status());
    Json(json!({"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": [item]})).into_response()
}

fn object(name: &str, status: &NodeStatus) -> Value {
    let NodeStatus { addresses, capacity, allocatable, not_ready, system } = status;
    let labels = json!({
        "kubernetes.io/arch": system.architecture,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    });
    let internal = addresses.iter().map(|it| json!({"type": "InternalIP", "address": it.to_string()}));
    let host_name = json!({"type": "Hostname", "address": name});
    let ready = match not_ready {
        None => json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "the node takes up pods",
        }),
        Some(message) => json!({
            "type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": message,
        }),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "addresses": internal.chain([host_name]).collect::<Value>(),
            "capacity": amounts(capacity),
            "allocatable": amounts(allocatable),
            "conditions": [ready],
            "nodeInfo": {
                "architecture": system.architecture,
                "bootID": system.boot_id,
                "containerRuntimeVersion": format!("coracle://{}", system.version),
                "kernelVersion": system.kernel,
                "kubeletVersion": format!("coracle {}", system.version),
                "machineID": system.machine_id,
                "operatingSystem": "linux",
                "osImage": system.os_image,
            },
        },
    })
}

/// As a kubelet writes them.
fn amounts(amounts: &Amounts) -> Value {
    let Amounts { cpu, memory, ephemeral_storage, extended } = amounts;
    let cpu = if cpu.is_multiple_of(1000) { (cpu / 1000).to_string() } else { format!("{cpu}m") };
    let mut object = Map::from_iter([
        ("cpu".to_owned(), cpu.into()),
        ("memory".to_owned(), format!("{}Ki", memory / 1024).into()),
        ("ephemeral-storage".to_owned(), format!("{}Ki", ephemeral_storage / 1024).into()),
    ]);
    object.extend(counts(extended));
    Value::Object(object)
}

fn counts(extended: &BTreeMap<ExtendedResource, u64>) -> impl Iterator<Item = (String, Value)> {
    extended.iter().map(|(resource, count)| (resource.to_string(), count.to_string().into()))
}
