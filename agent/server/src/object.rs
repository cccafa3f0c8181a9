//! Pods and events as Kubernetes objects.

use coracle_model::{ContainerState, ContainerStatus, Terminated};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{Event, PodEntry};

/// A pod as `v1 Pod`: what was asked for, with what is seen.
pub(crate) fn pod(entry: &PodEntry, node: &str) -> Value {
    // `object` is JSON by its definition; were it not, identity and status are still shown.
    let mut object: Map<String, Value> = serde_json::from_str(&entry.pod.object).unwrap_or_default();
    object.insert("apiVersion".to_owned(), json!("v1"));
    object.insert("kind".to_owned(), json!("Pod"));
    let mut metadata = take(&mut object, "metadata");
    metadata.insert("name".to_owned(), json!(entry.pod.key.name));
    metadata.insert("namespace".to_owned(), json!(entry.pod.key.namespace));
    metadata.insert("uid".to_owned(), json!(entry.pod.uid));
    metadata.insert("creationTimestamp".to_owned(), time(entry.creation_timestamp));
    if let Some(deletion) = entry.deletion_timestamp {
        metadata.insert("deletionTimestamp".to_owned(), time(deletion));
    }
    object.insert("metadata".to_owned(), metadata.into());
    let mut spec = take(&mut object, "spec");
    spec.entry("nodeName").or_insert_with(|| json!(node));
    object.insert("spec".to_owned(), spec.into());
    object.insert("status".to_owned(), status(entry));
    Value::Object(object)
}

fn status(entry: &PodEntry) -> Value {
    let status = &entry.status;
    let conditions = status.conditions.iter().map(|condition| {
        without_null(json!({
            "type": condition.kind.as_str(),
            "status": condition.status.as_str(),
            "reason": condition.reason,
            "message": condition.message,
            "lastTransitionTime": condition.last_transition_time.map(time),
        }))
    });
    let containers = |statuses: &[ContainerStatus]| match statuses {
        [] => Value::Null,
        statuses => statuses.iter().map(container).collect(),
    };
    without_null(json!({
        "phase": status.phase.as_str(),
        "conditions": conditions.collect::<Vec<_>>(),
        "reason": status.reason,
        "message": status.message,
        "startTime": status.start_time.map(time),
        "initContainerStatuses": containers(&status.init_container_statuses),
        "containerStatuses": containers(&status.container_statuses),
        "qosClass": format!("{:?}", status.qos_class),
    }))
}

fn container(status: &ContainerStatus) -> Value {
    let state = match &status.state {
        ContainerState::Waiting(waiting) => {
            json!({"waiting": without_null(json!({"reason": waiting.reason, "message": waiting.message}))})
        }
        ContainerState::Running(running) => json!({"running": {"startedAt": time(running.started_at)}}),
        ContainerState::Terminated(terminated) => json!({"terminated": ended(terminated)}),
    };
    let last = status.last_state.as_ref().map_or_else(|| json!({}), |last| json!({"terminated": ended(last)}));
    without_null(json!({
        "name": status.name,
        "state": state,
        "lastState": last,
        "ready": status.ready,
        "started": status.started,
        "restartCount": status.restart_count,
        "image": status.image,
        "imageID": status.image_id,
        "containerID": status.container_id.map(|id| format!("coracle://{id}")),
    }))
}

fn ended(terminated: &Terminated) -> Value {
    without_null(json!({
        "exitCode": terminated.exit_code,
        "signal": terminated.signal,
        "reason": terminated.reason,
        "message": terminated.message,
        "startedAt": terminated.started_at.map(time),
        "finishedAt": terminated.finished_at.map(time),
        "containerID": terminated.container_id.map(|id| format!("coracle://{id}")),
    }))
}

/// An event as `v1 Event`.
pub(crate) fn event(event: &Event, entry: &PodEntry, node: &str) -> Value {
    let involved = without_null(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": entry.pod.key.namespace,
        "name": entry.pod.key.name,
        "uid": entry.pod.uid,
        "fieldPath": event.field_path,
    }));
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": entry.pod.key.namespace},
        "involvedObject": involved,
        "type": event.kind,
        "reason": event.reason,
        "message": event.message,
        "firstTimestamp": time(event.first_timestamp),
        "lastTimestamp": time(event.last_timestamp),
        "count": event.count,
        "source": {"component": "coracle", "host": node},
    })
}

/// A list of objects of one kind.
pub(crate) fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({"kind": kind, "apiVersion": "v1", "metadata": {}, "items": items})
}

/// Takes a field that is an object, empty if it is missing.
fn take(object: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match object.remove(key) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Kubernetes' `metav1.Time` has whole seconds.
fn time(time: Timestamp) -> Value {
    json!(Timestamp::from_second(time.as_second()).unwrap_or(time).to_string())
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect())
        }
        other => other,
    }
}
