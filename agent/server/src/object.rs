//! Pods and events as Kubernetes objects.

use coracle_manifest::encode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Event, Node, PodEntry};

/// A pod as `v1 Pod`: what was asked for, with what is seen and where it stands.
pub(crate) fn pod(entry: &PodEntry, node: &dyn Node) -> Value {
    let place = encode::Node { name: node.name(), address: node.address() };
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
pub(crate) fn event(event: &Event, entry: &PodEntry, node: &dyn Node) -> Value {
    let key = &entry.pod.key;
    let mut involved = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": key.namespace,
        "name": key.name,
        "uid": entry.pod.uid,
    });
    if let Some(container) = &event.container {
        let init = entry.pod.spec.init_containers.iter().any(|init| init.name == container.as_str());
        let list = if init { "initContainers" } else { "containers" };
        involved["fieldPath"] = json!(format!("spec.{list}{{{container}}}"));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": key.namespace},
        "involvedObject": involved,
        "type": event.kind.as_str(),
        "reason": event.reason,
        "message": event.message,
        "firstTimestamp": time(event.first_seen),
        "lastTimestamp": time(event.last_seen),
        "count": event.count,
        "source": {"component": "coracle", "host": node.name()},
    })
}

/// Kubernetes' `metav1.Time` has whole seconds.
fn time(time: Timestamp) -> Value {
    json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
