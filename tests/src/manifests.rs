//! Pods to run.

use std::path::Path;

use serde_json::{Value, json};

use crate::images::BUSYBOX;

/// A pod of these containers in the namespace `default`.
pub fn pod(name: &str, containers: Vec<Value>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        // Short, so that a container that ignores SIGTERM does not hold a test up.
        "spec": {"terminationGracePeriodSeconds": 1, "containers": containers},
    })
}

/// A container of busybox that runs a shell script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": BUSYBOX, "command": ["/bin/sh", "-c", script]})
}

/// A container of busybox that runs until it is told to stop, and then does at once.
pub fn idle(name: &str) -> Value {
    shell(name, "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done")
}

/// Sets what a path of object keys and list indices leads to, making objects on the way.
pub fn with(mut object: Value, path: &str, value: Value) -> Value {
    let mut place = &mut object;
    for key in path.split('.') {
        place = match key.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[key],
        };
    }
    *place = value;
    object
}

/// Adds a directory of the host to the pod, and mounts it into its first container.
pub fn with_host_path(pod: Value, name: &str, host: &Path, mount: &str) -> Value {
    let mut pod = pod;
    let volume = json!({"name": name, "hostPath": {"path": host, "type": "DirectoryOrCreate"}});
    let entry = json!({"name": name, "mountPath": mount});
    push(&mut pod["spec"]["volumes"], volume);
    push(&mut pod["spec"]["containers"][0]["volumeMounts"], entry);
    pod
}

/// A pod that writes down in `out` when it is told to end and when it has, and in its volumes that it ran. It takes a while
/// for its end, and has as much time as it likes.
pub fn slow_to_end(name: &str, priority: i64, out: &Path) -> Value {
    let script = format!(
        "echo run >> /kept/runs; echo run >> /memory/runs; cat /kept/runs /memory/runs\n\
         trap 'echo {name} asked >> /out/order; sleep 1; echo {name} ended >> /out/order; exit 0' TERM\n\
         while :; do sleep 3600 & wait $!; done"
    );
    let mut pod = with_host_path(pod(name, vec![shell("c", &script)]), "out", out, "/out");
    pod["spec"]["priority"] = json!(priority);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(600);
    for (volume, medium) in [("kept", ""), ("memory", "Memory")] {
        push(&mut pod["spec"]["volumes"], json!({"name": volume, "emptyDir": {"medium": medium}}));
        let mounts = &mut pod["spec"]["containers"][0]["volumeMounts"];
        push(mounts, json!({"name": volume, "mountPath": format!("/{volume}")}));
    }
    pod
}

fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(list) => list.push(value),
        other => *other = Value::Array(vec![value]),
    }
}

/// Adds a directory of the host to the pod, and mounts it into all of its containers.
pub fn with_shared(pod: Value, name: &str, host: &Path, mount: &str) -> Value {
    let mut pod = pod;
    let volume = json!({"name": name, "hostPath": {"path": host, "type": "DirectoryOrCreate"}});
    push(&mut pod["spec"]["volumes"], volume);
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            push(&mut container["volumeMounts"], json!({"name": name, "mountPath": mount}));
        }
    }
    pod
}
