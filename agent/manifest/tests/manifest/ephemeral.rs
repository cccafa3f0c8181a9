//! Ephemeral containers: what may be added to a pod that is there.

use coracle_manifest::{ManifestError, decode_ephemeral, encode};
use coracle_model::{EphemeralContainer, ImagePullPolicy, Pod, PodPhase, PodStatus, QosClass};

use super::one;

const POD: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {initContainers: [{name: setup, image: i}],
    containers: [{name: web, image: i}], volumes: [{name: data, emptyDir: {}}]}}";

fn add(pod: &Pod, json: &str) -> Result<EphemeralContainer, String> {
    decode_ephemeral("request", json.as_bytes(), pod).map_err(|error| match error {
        ManifestError::Invalid(_) => error.to_string(),
        other => panic!("{other}"),
    })
}

#[test]
fn an_ephemeral_container_is_defaulted_as_any_other() {
    let mut pod = one(POD);
    let json = r#"{"name": "debugger", "image": "busybox", "targetContainerName": "web", "stdin": true, "tty": true,
        "command": ["sh"], "env": [{"name": "A", "value": "b"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}, "resources": {}}"#;
    let first = add(&pod, json).unwrap();
    assert_eq!(first.target.as_deref(), Some("web"));
    assert_eq!(add(&pod, &first.object).as_ref(), Ok(&first), "as it is shown it is accepted again");
    let container = &first.container;
    assert_eq!((container.name.as_str(), container.image.as_str()), ("debugger", "busybox"));
    assert_eq!(container.image_pull_policy, ImagePullPolicy::Always);
    assert!(container.stdin && container.tty && !container.stdin_once && container.volume_mounts.len() == 1);
    pod.spec.ephemeral_containers.push(first);

    let status = PodStatus {
        phase: PodPhase::Running,
        conditions: Vec::new(),
        reason: None,
        message: None,
        host_ips: Vec::new(),
        pod_ips: Vec::new(),
        start_time: None,
        init_container_statuses: Vec::new(),
        container_statuses: Vec::new(),
        ephemeral_container_statuses: Vec::new(),
        qos_class: QosClass::BestEffort,
    };
    let shown = encode::pod(&pod, &status, &encode::Node { name: "node" });
    insta::assert_json_snapshot!("ephemeral", shown["spec"]["ephemeralContainers"]);
}

#[test]
fn what_an_ephemeral_container_may_not_be_is_refused_in_the_api_servers_words() {
    let mut pod = one(POD);
    pod.spec.ephemeral_containers.push(add(&pod, r#"{"name": "first", "image": "i"}"#).unwrap());
    let mut report = String::new();
    for json in [
        "{}",
        "[]",
        "{} {}",
        r#"{"name": "a", "image": "i", "color": "red", "stdin": "yes"}"#,
        r#"{"name": "web", "image": "i"}"#,
        r#"{"name": "setup", "image": "i"}"#,
        r#"{"name": "first", "image": "i"}"#,
        r#"{"name": "A_b", "image": ""}"#,
        r#"{"name": "a", "image": "i", "targetContainerName": "nginx"}"#,
        r#"{"name": "a", "image": "i", "targetContainerName": "first"}"#,
        r#"{"name": "a", "image": "i", "targetContainerName": "a"}"#,
        r#"{"name": "a", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/d", "subPath": "x"}, {"name": "x", "mountPath": "/x"}]}"#,
        r#"{"name": "a", "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": 1}},
            "livenessProbe": {"exec": {"command": ["true"]}}, "readinessProbe": {}, "startupProbe": {}, "lifecycle": {},
            "restartPolicy": "Always", "restartPolicyRules": [{"action": "Restart"}], "resizePolicy": [{"resourceName": "cpu", "restartPolicy": ""}]}"#,
    ] {
        report += &format!("{}\n", add(&pod, json).unwrap_err());
    }
    insta::assert_snapshot!("ephemeral-refused", report);
}
