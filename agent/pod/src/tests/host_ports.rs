//! Pods that ask for the same ports of the host.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerPort, Name, Pod, PodPhase, Protocol, RestartPolicy};
use tokio::time::sleep;

use super::fake::Verb;
use super::node::{Node, SETTLE, uid};
use super::values::pod;
use crate::{Eviction, PodSnapshot, WorkerPhase};

use RestartPolicy::{Always, Never};

/// A pod with port 80 of the host.
fn with_port(name: &str, policy: RestartPolicy) -> Pod {
    let mut pod = pod(name, policy, &[], &["web"]);
    pod.key.name = Name::label(name).unwrap();
    pod.spec.containers[0].ports.push(ContainerPort {
        name: None,
        container_port: 8080,
        host_port: Some(80),
        host_ip: None,
        protocol: Protocol::Tcp,
    });
    pod
}

impl Node {
    fn want(&self, pod: Pod) {
        let source = Path::new("/m").join(pod.key.name.as_str());
        self.pods.set_desired(Arc::new(pod), Some(source.as_path().into())).unwrap();
    }

    fn see_of(&self, name: &str) -> PodSnapshot {
        self.pods.get(&uid(name)).unwrap()
    }

    fn phase(&self, name: &str) -> PodPhase {
        self.see_of(name).status.phase
    }

    /// Reasons and messages of what was told of the ports of a pod.
    fn told_of_ports(&self, name: &str) -> Vec<String> {
        let told = self.fake.told(&uid(name)).into_iter().filter(|told| told.reason == "NodePorts");
        told.map(|told| told.message).collect()
    }

    fn made(&self, name: &str) -> bool {
        self.fake.with(|state| state.calls.iter().any(|call| *call == (Verb::Sandbox, name.to_owned())))
    }
}

const TAKEN: &str = "Node didn't have free ports for the requested pod ports: host port 80/TCP, which container web \
                     asks for, is that of container web of pod default/a (host port 80/TCP, container port 8080)";

#[tokio::test(start_paused = true)]
async fn a_port_that_another_pod_has_is_refused_until_that_pod_is_gone() {
    let node = Node::new();
    node.want(with_port("a", Always));
    node.want(with_port("b", Always));
    // Nobody would give it again.
    node.pods.set_desired(Arc::new(with_port("c", Always)), None).unwrap();
    sleep(SETTLE).await;
    assert_eq!(node.phase("a"), PodPhase::Running);
    let refused = node.see_of("b").status;
    assert_eq!((refused.phase, refused.reason.as_deref()), (PodPhase::Failed, Some("NodePorts")));
    assert_eq!(refused.message, Some(format!("Pod was rejected: {TAKEN}")));
    assert_eq!(node.told_of_ports("b"), [TAKEN]);

    node.pods.terminate(&uid("a"), Some(Duration::ZERO));
    sleep(SETTLE).await;
    assert_eq!(node.phase("b"), PodPhase::Running, "its manifest still asks for it");
    assert_eq!(node.phase("c"), PodPhase::Failed, "what came from elsewhere has failed for good");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_the_end_of_one_whose_port_it_gets() {
    let node = Node::new();
    node.want(with_port("a", Always));
    sleep(SETTLE).await;
    node.fake.with(|state| state.obey = Some(Duration::from_secs(5)));
    // As when a manifest is moved from one pod to another in one step.
    node.pods.terminate(&uid("a"), None);
    node.want(with_port("b", Always));
    node.want(with_port("c", Always));
    sleep(Duration::from_secs(3)).await;
    assert_eq!((node.phase("b"), node.made("b")), (PodPhase::Pending, false));
    let message = "Waiting for pod default/a to end: its container web has host port 80/TCP, and container web \
                   asks for 80/TCP";
    assert_eq!(node.told_of_ports("b"), [message]);
    assert_eq!(node.phase("c"), PodPhase::Failed, "the port is promised to b");
    sleep(Duration::from_secs(3)).await;
    assert_eq!((node.phase("b"), node.phase("c")), (PodPhase::Running, PodPhase::Failed));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn who_has_a_port_and_who_waits_for_it_is_known_to_the_next_agent() {
    let mut node = Node::new();
    node.want(with_port("a", Always));
    sleep(SETTLE).await;
    node.fake.with(|state| state.obey = Some(Duration::from_secs(5)));
    node.want(with_port("late", Always));
    node.pods.terminate(&uid("a"), None);
    node.want(with_port("b", Always));
    sleep(SETTLE).await;
    node.restart_agent().await;
    node.want(with_port("c", Always));
    sleep(SETTLE).await;
    assert_eq!((node.phase("b"), node.made("b")), (PodPhase::Pending, false));
    assert_eq!((node.phase("c"), node.phase("late")), (PodPhase::Failed, PodPhase::Failed));
    sleep(Duration::from_secs(6)).await;
    assert_eq!((node.phase("b"), node.phase("c")), (PodPhase::Running, PodPhase::Failed));

    node.restart_agent().await;
    assert_eq!((node.phase("b"), node.phase("c")), (PodPhase::Running, PodPhase::Failed));
    node.fake.with(|state| state.obey = Some(Duration::ZERO));
    node.pods.terminate(&uid("b"), None);
    sleep(SETTLE).await;
    let running = ["c", "late"].into_iter().filter(|name| node.phase(name) == PodPhase::Running);
    assert_eq!(running.count(), 1, "one of those that were refused");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_a_port_can_be_removed() {
    let node = Node::new();
    node.want(with_port("a", Always));
    sleep(SETTLE).await;
    node.fake.with(|state| state.obey = Some(Duration::from_secs(5)));
    node.pods.terminate(&uid("a"), None);
    node.want(with_port("b", Always));
    sleep(SETTLE).await;
    node.pods.terminate(&uid("b"), None);
    sleep(SETTLE).await;
    assert!(node.pods.get(&uid("b")).is_none() && !node.made("b"));
    sleep(Duration::from_secs(6)).await;
    assert!(node.pods.snapshot().is_empty());
    assert_eq!(node.fake.leftovers(), Vec::<String>::new());
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_ended_has_no_port() {
    let node = Node::new();
    node.want(with_port("a", Never));
    sleep(SETTLE).await;
    assert!(node.fake.exit(&node.pods, &uid("a"), "web", 0));
    sleep(SETTLE).await;
    assert_eq!(node.see_of("a").phase, WorkerPhase::Terminated);
    node.want(with_port("b", Always));
    sleep(SETTLE).await;
    assert_eq!(node.phase("b"), PodPhase::Running);

    let eviction = Eviction { reason: "Evicted", message: String::new(), grace: None, shutdown: false };
    node.want(with_port("c", Always));
    sleep(SETTLE).await;
    assert_eq!(node.phase("c"), PodPhase::Failed);
    assert!(node.pods.evict(&uid("b"), eviction));
    sleep(Duration::from_secs(31)).await;
    assert_eq!(node.phase("c"), PodPhase::Running);
    node.well_behaved();
}
