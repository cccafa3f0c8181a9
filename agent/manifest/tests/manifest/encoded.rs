//! Pods and their status as Kubernetes objects.

use coracle_manifest::encode;
use coracle_model::{
    AllocatedDevice, AllocatedResource, ConditionStatus, ContainerId, ContainerState, ContainerStatus,
    DeviceHealth, PodCondition, PodConditionType, PodPhase, PodStatus, QosClass, Running, Terminated,
    VolumeMountStatus, Waiting,
};

use super::one;

fn status() -> PodStatus {
    let at = |text: &str| Some(text.parse().unwrap());
    let id = Some(ContainerId::from_bytes([0xab; 32]));
    let container = |name: &str, state| ContainerStatus {
        name: name.to_owned(),
        state,
        last_state: None,
        ready: false,
        started: false,
        restart_count: 0,
        image: "nginx".to_owned(),
        image_id: String::new(),
        container_id: None,
        stop_signal: None,
        volume_mounts: Vec::new(),
        allocated_resources: Vec::new(),
    };
    let mount = |name: &str, read_only, image_ref| VolumeMountStatus {
        name: name.to_owned(),
        mount_path: format!("/{name}"),
        read_only,
        image_ref,
    };
    let ended = Terminated {
        exit_code: 137,
        signal: Some(9),
        reason: "OOMKilled".to_owned(),
        message: None,
        started_at: at("2026-01-02T03:04:05.987654321Z"),
        finished_at: at("2026-01-02T03:04:06Z"),
        container_id: id,
    };
    let never =
        Terminated { started_at: None, signal: None, reason: "StartError".to_owned(), ..ended.clone() };
    let running = ContainerStatus {
        last_state: Some(ended.clone()),
        ready: true,
        started: true,
        restart_count: 1,
        image_id: "sha256:00".to_owned(),
        container_id: id,
        stop_signal: "SIGRTMIN+3".parse().ok(),
        volume_mounts: vec![
            mount("data", false, None),
            mount("model", true, Some("registry.example/model@sha256:00".to_owned())),
        ],
        allocated_resources: vec![AllocatedResource {
            resource: "nvidia.com/gpu".to_owned().try_into().unwrap(),
            devices: [("GPU-0", DeviceHealth::Healthy), ("GPU-1", DeviceHealth::Unhealthy)]
                .map(|(id, health)| AllocatedDevice { id: id.to_owned(), health })
                .into(),
        }],
        ..container(
            "server",
            ContainerState::Running(Running { started_at: "2026-01-02T03:04:07Z".parse().unwrap() }),
        )
    };
    let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message: Some("back-off 10s".to_owned()) };
    PodStatus {
        phase: PodPhase::Running,
        conditions: vec![PodCondition {
            kind: PodConditionType::Ready,
            status: ConditionStatus::False,
            reason: Some("ContainersNotReady".to_owned()),
            message: None,
            last_transition_time: at("2026-01-02T03:04:05Z"),
        }],
        reason: None,
        message: None,
        host_ips: vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        pod_ips: vec!["10.83.0.7".parse().unwrap()],
        start_time: at("2026-01-02T03:04:04.5Z"),
        init_container_statuses: vec![container("prepare", ContainerState::Terminated(never))],
        container_statuses: vec![running.clone(), container("shell", ContainerState::Waiting(waiting))],
        ephemeral_container_statuses: vec![container("debugger", running.state)],
        qos_class: QosClass::Burstable,
    }
}

#[test]
fn a_status_is_written_as_kubernetes_writes_it() {
    let pod = one(include_str!("good/two-containers.yaml"));
    let node = encode::Node { name: "node-1" };
    let object = encode::pod(&pod, &status(), &node);
    assert_eq!(object["metadata"]["creationTimestamp"], "2026-01-02T03:04:04Z");
    assert_eq!(object["spec"]["nodeName"], "node-1");
    insta::assert_json_snapshot!("status", object["status"]);
}

/// What `coracle get pods -o json` prints can be given to the node again.
#[test]
fn an_encoded_list_decodes_to_the_same_pods() {
    let node = encode::Node { name: "node-1" };
    let pods = [one(include_str!("good/two-containers.yaml")), one(include_str!("good/exported.yaml"))];
    let list = encode::pod_list(pods.iter().map(|pod| encode::pod(pod, &status(), &node)));
    let again = coracle_manifest::decode("again.json", list.to_string().as_bytes()).unwrap();
    assert_eq!(again.pods.len(), 2);
    for (pod, again) in pods.iter().zip(again.pods) {
        assert_eq!(again.spec, pod.spec);
        assert_eq!(again.uid, pod.uid);
        assert_eq!(again.key, pod.key);
    }
}
