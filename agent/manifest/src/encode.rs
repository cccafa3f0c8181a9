//! The model as Kubernetes objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_model::{
    AllocatedDevice, AllocatedResource, ConfigKind, ConfigObject, ContainerState, ContainerStatus, Pod,
    PodCondition, PodStatus, Running, Terminated, VolumeMountStatus, Waiting,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The node a pod runs on, as far as pods show it.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// The node's name.
    pub name: &'a str,
}

/// A `v1 Pod` with its status.
pub fn pod(pod: &Pod, status: &PodStatus, node: &Node<'_>) -> Value {
    // `object` was written by this crate; should it ever not be JSON, the pod still has its name.
    let mut object = match serde_json::from_str(&pod.object) {
        Ok(Value::Object(object)) => object,
        _ => bare(pod),
    };
    let mut generation = 1;
    within(&mut object, "metadata", |metadata| {
        generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(1);
        if let (None, Some(start)) = (metadata.get("creationTimestamp"), status.start_time) {
            metadata.insert("creationTimestamp".to_owned(), time(start));
        }
    });
    within(&mut object, "spec", |spec| {
        spec.entry("nodeName").or_insert_with(|| node.name.into());
        let ephemeral = pod.spec.ephemeral_containers.iter();
        let ephemeral: Vec<Value> =
            ephemeral.filter_map(|one| serde_json::from_str(&one.object).ok()).collect();
        if !ephemeral.is_empty() {
            spec.insert("ephemeralContainers".to_owned(), ephemeral.into());
        }
    });
    object.insert("status".to_owned(), pod_status(status, generation));
    Value::Object(object)
}

/// A `v1 PodList` of encoded pods.
pub fn pod_list(pods: impl IntoIterator<Item = Value>) -> Value {
    let items: Vec<_> = pods.into_iter().collect();
    json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items })
}

/// A `v1 ConfigMap`, or a `v1 Secret` without its values: its keys have none.
pub fn config(object: &ConfigObject) -> Value {
    let mut encoded = json!({
        "apiVersion": "v1",
        "kind": object.key.kind.as_str(),
        "metadata": { "name": object.key.name.as_str(), "namespace": object.key.namespace.as_str() },
    });
    let is_secret = object.key.kind == ConfigKind::Secret;
    let map = |values: &BTreeMap<String, Arc<[u8]>>, encode: fn(&[u8]) -> Value| {
        let shown = |value: &[u8]| if is_secret { Value::Null } else { encode(value) };
        let entries = values.iter().map(|(key, value)| (key.clone(), shown(value)));
        Value::Object(entries.collect())
    };
    if !object.data.is_empty() {
        encoded["data"] = map(&object.data, |value| String::from_utf8_lossy(value).into());
    }
    if !object.binary_data.is_empty() {
        encoded["binaryData"] = map(&object.binary_data, |value| STANDARD.encode(value).into());
    }
    if is_secret {
        encoded["type"] = object.secret_type.as_str().into();
    }
    if object.immutable {
        encoded["immutable"] = true.into();
    }
    encoded
}

fn bare(pod: &Pod) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), "v1".into());
    object.insert("kind".to_owned(), "Pod".into());
    let metadata = json!({ "name": pod.key.name.as_str(), "namespace": pod.key.namespace.as_str(), "uid": pod.uid.as_str() });
    object.insert("metadata".to_owned(), metadata);
    object
}

/// Changes the object under a key, which is made when it is not there.
fn within(object: &mut Map<String, Value>, key: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut inner = match object.remove(key) {
        Some(Value::Object(inner)) => inner,
        _ => Map::new(),
    };
    change(&mut inner);
    object.insert(key.to_owned(), Value::Object(inner));
}

/// RFC 3339 in whole seconds, as Kubernetes writes `metav1.Time`.
fn time(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

fn put(object: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}

fn pod_status(status: &PodStatus, generation: i64) -> Value {
    let mut object = Map::new();
    object.insert("phase".to_owned(), status.phase.as_str().into());
    object.insert("observedGeneration".to_owned(), generation.into());
    let conditions: Vec<_> =
        status.conditions.iter().map(|condition| pod_condition(condition, generation)).collect();
    object.insert("conditions".to_owned(), conditions.into());
    put(&mut object, "reason", status.reason.as_deref());
    put(&mut object, "message", status.message.as_deref());
    for (one, all, addresses) in
        [("hostIP", "hostIPs", &status.host_ips), ("podIP", "podIPs", &status.pod_ips)]
    {
        if let Some(first) = addresses.first() {
            object.insert(one.to_owned(), first.to_string().into());
            let addresses = addresses.iter().map(|address| json!({ "ip": address.to_string() }));
            object.insert(all.to_owned(), addresses.collect());
        }
    }
    put(&mut object, "startTime", status.start_time.map(time));
    // Whether ephemeral containers have started nobody asks.
    for (key, statuses, tells_started) in [
        ("initContainerStatuses", &status.init_container_statuses, true),
        ("containerStatuses", &status.container_statuses, true),
        ("ephemeralContainerStatuses", &status.ephemeral_container_statuses, false),
    ] {
        if !statuses.is_empty() {
            let statuses = statuses.iter().map(|status| container_status(status, tells_started));
            object.insert(key.to_owned(), statuses.collect());
        }
    }
    object.insert("qosClass".to_owned(), status.qos_class.as_str().into());
    Value::Object(object)
}

fn pod_condition(condition: &PodCondition, generation: i64) -> Value {
    let PodCondition { kind, status, reason, message, last_transition_time } = condition;
    let mut object = Map::new();
    object.insert("type".to_owned(), kind.as_str().into());
    object.insert("status".to_owned(), status.as_str().into());
    object.insert("observedGeneration".to_owned(), generation.into());
    // Kubernetes always writes this one, as null when it does not know.
    object.insert("lastProbeTime".to_owned(), Value::Null);
    object.insert("lastTransitionTime".to_owned(), last_transition_time.map_or(Value::Null, time));
    put(&mut object, "reason", reason.as_deref());
    put(&mut object, "message", message.as_deref());
    Value::Object(object)
}

fn container_status(status: &ContainerStatus, tells_started: bool) -> Value {
    let ContainerStatus {
        name,
        state,
        last_state,
        ready,
        started,
        restart_count,
        image,
        image_id,
        container_id,
        stop_signal,
        volume_mounts,
        allocated_resources,
    } = status;
    let last_state = match last_state {
        Some(last) => json!({ "terminated": terminated(last) }),
        None => json!({}),
    };
    let mut object = Map::new();
    object.insert("name".to_owned(), name.as_str().into());
    object.insert("state".to_owned(), container_state(state));
    object.insert("lastState".to_owned(), last_state);
    object.insert("ready".to_owned(), (*ready).into());
    put(&mut object, "started", tells_started.then_some(*started));
    object.insert("restartCount".to_owned(), (*restart_count).into());
    object.insert("image".to_owned(), image.as_str().into());
    object.insert("imageID".to_owned(), image_id.as_str().into());
    put(&mut object, "containerID", container_id.map(|id| format!("coracle://{id}")));
    put(&mut object, "stopSignal", stop_signal.map(|signal| signal.to_string()));
    if !volume_mounts.is_empty() {
        let mounts = volume_mounts.iter().map(volume_mount_status);
        object.insert("volumeMounts".to_owned(), mounts.collect());
    }
    if !allocated_resources.is_empty() {
        let resources = allocated_resources.iter().map(|AllocatedResource { resource, devices }| {
            let device = |device: &AllocatedDevice| {
                json!({ "resourceID": device.id, "health": device.health.as_str() })
            };
            json!({ "name": resource.as_str(), "resources": devices.iter().map(device).collect::<Value>() })
        });
        object.insert("allocatedResourcesStatus".to_owned(), resources.collect());
    }
    Value::Object(object)
}

fn volume_mount_status(mount: &VolumeMountStatus) -> Value {
    let VolumeMountStatus { name, mount_path, read_only, image_ref } = mount;
    let mut object = Map::new();
    object.insert("name".to_owned(), name.as_str().into());
    object.insert("mountPath".to_owned(), mount_path.as_str().into());
    // As the kubelet: only of what is read-only there is more to say.
    if *read_only {
        object.insert("readOnly".to_owned(), true.into());
        object.insert("recursiveReadOnly".to_owned(), "Disabled".into());
    }
    if let Some(image) = image_ref {
        object.insert("volumeStatus".to_owned(), json!({ "image": { "imageRef": image } }));
    }
    Value::Object(object)
}

fn container_state(state: &ContainerState) -> Value {
    match state {
        ContainerState::Waiting(Waiting { reason, message }) => {
            let mut object = Map::new();
            object.insert("reason".to_owned(), reason.as_str().into());
            put(&mut object, "message", message.as_deref());
            json!({ "waiting": object })
        }
        ContainerState::Running(Running { started_at }) => {
            json!({ "running": { "startedAt": time(*started_at) } })
        }
        ContainerState::Terminated(ended) => json!({ "terminated": terminated(ended) }),
    }
}

fn terminated(ended: &Terminated) -> Value {
    let Terminated { exit_code, signal, reason, message, started_at, finished_at, container_id } = ended;
    let mut object = Map::new();
    object.insert("exitCode".to_owned(), (*exit_code).into());
    put(&mut object, "signal", *signal);
    object.insert("reason".to_owned(), reason.as_str().into());
    put(&mut object, "message", message.as_deref());
    // Kubernetes writes a time it does not know as null.
    object.insert("startedAt".to_owned(), started_at.map_or(Value::Null, time));
    object.insert("finishedAt".to_owned(), finished_at.map_or(Value::Null, time));
    put(&mut object, "containerID", container_id.map(|id| format!("coracle://{id}")));
    Value::Object(object)
}
