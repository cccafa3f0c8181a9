//! Pods and events as Kubernetes objects.

use coracle_manifest::encode;
use coracle_model::Event;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Node, PodEntry};

/// Of every object there are events about.
pub(crate) const API_VERSION: &str = "v1";

/// A pod as `v1 Pod`: what was asked for, with what is seen and where it stands.
pub(crate) fn pod(entry: &PodEntry, node: &dyn Node) -> Value {
    let place = encode::Node { name: node.name() };
    let mut object = encode::pod(&entry.pod, &entry.status, &place);
    let metadata = &mut object["metadata"];
    metadata["resourceVersion"] = json!(entry.version.to_string());
    if let Some(deletion) = entry.deletion {
        // As Kubernetes has it: the time by which the pod is to be gone.
        let deadline = deletion.requested_at.checked_add(deletion.grace).unwrap_or(Timestamp::MAX);
        metadata["deletionTimestamp"] = time(deadline);
        metadata["deletionGracePeriodSeconds"] = json!(deletion.grace.as_secs());
    }
    object
}

/// An event as `v1 Event`.
pub(crate) fn event(event: &Event, node: &dyn Node) -> Value {
    let object = &event.involved_object;
    let mut involved = json!({
        "apiVersion": API_VERSION,
        "kind": object.kind,
        "name": object.name,
        "uid": object.uid,
    });
    for (field, value) in [("namespace", &object.namespace), ("fieldPath", &object.field_path)] {
        if let Some(value) = value {
            involved[field] = json!(value);
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": event.name,
            "namespace": namespace(event),
            "resourceVersion": event.version.to_string(),
            "creationTimestamp": time(event.first_timestamp),
        },
        "involvedObject": involved,
        "type": event.kind.as_str(),
        "reason": event.reason,
        "message": event.message,
        "firstTimestamp": time(event.first_timestamp),
        "lastTimestamp": time(event.last_timestamp),
        "count": event.count,
        "source": {"component": event.component, "host": node.name()},
        "reportingComponent": event.component,
        "reportingInstance": node.name(),
    })
}

/// The namespace of an event: its object's. Those of objects without one stand where client-go puts them.
pub(crate) fn namespace(event: &Event) -> &str {
    event.involved_object.namespace.as_deref().unwrap_or("default")
}

/// Kubernetes' `metav1.Time` has whole seconds.
fn time(time: Timestamp) -> Value {
    json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
