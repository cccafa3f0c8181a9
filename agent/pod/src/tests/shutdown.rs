//! Pods that end with the node, and begin again with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{Handler, Pod, PodConditionType, PodPhase, PodStatus, RestartPolicy, Terminated};
use tokio::time::{Instant, sleep, timeout};

use super::fake::Verb;
use super::node::{Node, POLICY, SETTLE, uid};
use super::values::pod;
use crate::{Eviction, WorkerPhase};

use RestartPolicy::{Always, Never, OnFailure};

/// What is seen goes on record within this time.
const KEPT: Duration = Duration::from_secs(2);

impl Node {
    fn run_manifest(&self, pod: &Pod) {
        self.pods.set_desired(Arc::new(pod.clone()), Some(Path::new("/m/a.yaml").into())).unwrap();
    }

    /// The node shuts down, and gives the pod so much time. It is waited for.
    async fn shut_down(&self, seconds: u64) {
        self.pods.set_shutting_down(true);
        assert!(self.pods.evict(&uid("a"), Eviction::node_shutdown(Duration::from_secs(seconds))));
        let pods = [uid("a")].into();
        timeout(Duration::from_secs(100), self.pods.settled(&pods)).await.expect("the pod ends");
    }

    async fn next_boot(&mut self) {
        self.pods.detach().await;
        self.fake.reboot();
        self.pods = self.fake.take_over();
        self.pods.set_shutting_down(false);
        sleep(SETTLE).await;
    }

    fn volumes(&self) -> bool {
        self.fake.with(|state| state.pods.get(&uid("a")).is_some_and(|host| host.volumes))
    }
}

fn is_over(status: &PodStatus) {
    assert_eq!((status.phase, status.reason.as_deref()), (PodPhase::Failed, Some("Terminated")));
    let message = "Pod was terminated in response to imminent node shutdown.";
    assert_eq!(status.message.as_deref(), Some(message));
    let condition =
        status.conditions.iter().find(|it| it.kind == PodConditionType::DisruptionTarget).unwrap();
    let seen = (condition.reason.as_deref(), condition.message.as_deref());
    assert_eq!(seen, (Some("TerminationByKubelet"), Some(message)));
}

fn last(node: &Node, name: &str) -> Terminated {
    node.container(name).last_state.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_the_time_of_its_group_and_no_more_than_its_own() {
    for (given, own, takes) in [(10, 30, 10), (30, 5, 5), (30, 30, 30), (0, 30, 2)] {
        let node = Node::new();
        let mut pod = pod("a", POLICY, &[], &["web"]);
        pod.spec.termination_grace_period = Duration::from_secs(own);
        node.run_manifest(&pod);
        sleep(KEPT).await;
        node.fake.with(|state| state.obey = None);
        let began = Instant::now();
        node.shut_down(given).await;
        assert_eq!(began.elapsed().as_secs(), takes, "{given} {own}");
        is_over(&node.see().status);
        node.well_behaved();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_manifest_begins_again_after_the_reboot() {
    let mut node = Node::new();
    let mut pod = pod("a", Always, &["setup"], &["web"]);
    pod.spec.containers[0].lifecycle.pre_stop = Some(Handler::Sleep(Duration::from_secs(3)));
    node.run_manifest(&pod);
    sleep(SETTLE).await;
    node.exit("setup", 0);
    sleep(KEPT).await;
    let start_time = node.see().status.start_time;
    let began = Instant::now();
    node.shut_down(10).await;
    assert_eq!(began.elapsed().as_secs(), 3, "with its hook");
    is_over(&node.see().status);
    let kept = node.fake.with(|state| state.checkpoints[&uid("a")].clone());
    assert!(kept.finished.is_some(), "it has not settled before that is durable");
    assert!(node.volumes(), "it is not over for the pod");

    node.next_boot().await;
    node.exit("setup", 0);
    sleep(SETTLE).await;
    let seen = node.see();
    assert_eq!((seen.phase, seen.status.phase), (WorkerPhase::Syncing, PodPhase::Running));
    assert_eq!((seen.status.reason.as_deref(), seen.status.message.as_deref()), (None, None));
    assert_eq!(seen.status.start_time, start_time);
    let kinds: Vec<_> = seen.status.conditions.iter().map(|it| it.kind).collect();
    assert!(!kinds.contains(&PodConditionType::DisruptionTarget));
    assert_eq!((node.container("setup").restart_count, node.container("web").restart_count), (1, 1));
    assert_eq!((last(&node, "web").exit_code, last(&node, "web").reason.as_str()), (143, "Error"));
    // Ending with the node was no crash: the next one is the first.
    node.exit("web", 1);
    sleep(SETTLE).await;
    assert_eq!(node.container("web").restart_count, 2);
    node.pods.terminate(&uid("a"), None);
    node.gone(Duration::from_secs(4)).await;
}

#[tokio::test(start_paused = true)]
async fn its_restart_policy_decides_whether_a_container_runs_again() {
    for (policy, code, phase) in [
        (Always, 0, PodPhase::Running),
        (OnFailure, 143, PodPhase::Running),
        (OnFailure, 0, PodPhase::Succeeded),
        (Never, 143, PodPhase::Failed),
    ] {
        let mut node = Node::new();
        node.run_manifest(&pod("a", policy, &[], &["web"]));
        node.fake.with(|state| state.exit_code = code);
        sleep(KEPT).await;
        node.shut_down(10).await;
        is_over(&node.see().status);
        node.next_boot().await;
        let text = format!("{policy:?} {code}");
        assert_eq!(node.see().status.phase, phase, "{text}");
        assert_eq!(node.see().status.reason, None, "{text}");
        node.well_behaved();
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_machine_left_no_time_for_ended_with_it() {
    let mut node = Node::new();
    node.run_manifest(&pod("a", Always, &[], &["web"]));
    sleep(KEPT).await;
    node.fake.with(|state| state.obey = None);
    node.pods.evict(&uid("a"), Eviction::node_shutdown(Duration::from_secs(30)));
    sleep(KEPT).await;
    node.next_boot().await;
    assert_eq!(node.see().status.phase, PodPhase::Running);
    assert_eq!(node.container("web").restart_count, 1);
    assert_eq!((last(&node, "web").exit_code, last(&node, "web").reason.as_str()), (255, "Unknown"));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_no_manifest_has_failed_for_good() {
    let mut node = Node::new();
    node.run(Always, &[], &["web"]).await;
    sleep(KEPT).await;
    node.shut_down(10).await;
    assert!(!node.volumes());
    for _ in 0..2 {
        is_over(&node.see().status);
        node.next_boot().await;
    }
    assert_eq!(node.fake.count(Verb::Create), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_another_reason_has_is_not_taken_back() {
    let mut node = Node::new();
    let mut pod = pod("a", Always, &[], &["web"]);
    pod.spec.active_deadline = Some(Duration::from_secs(60));
    node.run_manifest(&pod);
    sleep(Duration::from_secs(61)).await;
    node.shut_down(10).await;
    node.next_boot().await;
    let status = node.see().status;
    assert_eq!((status.phase, status.reason.as_deref()), (PodPhase::Failed, Some("DeadlineExceeded")));
    assert!(!node.volumes());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_while_the_node_shuts_down_is_refused_and_runs_in_the_next_boot() {
    let mut node = Node::new();
    node.pods.set_shutting_down(true);
    node.run_manifest(&pod("a", Never, &["setup"], &["web"]));
    sleep(KEPT).await;
    let seen = node.see();
    assert!(seen.settled);
    let status = &seen.status;
    assert_eq!((status.phase, status.reason.as_deref()), (PodPhase::Failed, Some("NodeShutdown")));
    let message = "Pod was rejected: Pod was rejected as the node is shutting down.";
    assert_eq!(status.message.as_deref(), Some(message));
    assert!(status.container_statuses.is_empty() && status.init_container_statuses.is_empty());
    let told = node.fake.told(&uid("a"));
    let told: Vec<_> = told.iter().map(|told| (told.reason.as_str(), told.message.as_str())).collect();
    assert_eq!(told, [("NodeShutdown", "Pod was rejected as the node is shutting down.")]);
    for verb in [Verb::Sandbox, Verb::Volumes, Verb::Image, Verb::Create] {
        assert_eq!(node.fake.count(verb), 0, "{verb:?}");
    }
    node.next_boot().await;
    node.exit("setup", 0);
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Running);
    assert_eq!(node.container("web").restart_count, 0);
    assert!(node.see().status.start_time > status.start_time);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_replaces_another_while_the_node_shuts_down_is_refused() {
    let node = Node::new();
    node.run_manifest(&pod("a", Always, &[], &["web"]));
    sleep(SETTLE).await;
    node.pods.set_shutting_down(true);
    let mut other = pod("b", Always, &[], &["web"]);
    other.key = node.see().pod.key.clone();
    node.run_manifest(&other);
    node.pods.terminate(&uid("a"), None);
    sleep(KEPT).await;
    assert_eq!(node.pods.get(&uid("b")).unwrap().status.reason.as_deref(), Some("NodeShutdown"));
    node.pods.set_shutting_down(false);
    sleep(SETTLE).await;
    assert_eq!(node.pods.get(&uid("b")).unwrap().status.phase, PodPhase::Running);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_called_off_leaves_the_node_as_it_was() {
    let node = Node::new();
    node.run_manifest(&pod("a", Always, &[], &["web"]));
    sleep(KEPT).await;
    node.shut_down(10).await;
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(node.fake.count(Verb::Create), 1);
    node.pods.set_shutting_down(false);
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Running);
    assert_eq!((node.container("web").restart_count, last(&node, "web").exit_code), (1, 143));

    // While its end is under way: it ends, and begins again then.
    sleep(KEPT).await;
    node.fake.with(|state| state.obey = Some(Duration::from_secs(8)));
    node.pods.evict(&uid("a"), Eviction::node_shutdown(Duration::from_secs(10)));
    sleep(KEPT).await;
    node.pods.set_shutting_down(false);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(node.see().phase, WorkerPhase::Terminating);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((node.see().status.phase, node.container("web").restart_count), (PodPhase::Running, 2));
    node.pods.terminate(&uid("a"), None);
    node.gone(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_finds_no_shutdown_has_pods_begin_again() {
    let mut node = Node::new();
    node.run_manifest(&pod("a", Always, &[], &["web"]));
    sleep(KEPT).await;
    node.shut_down(10).await;
    // As long as it does not know, it leaves them as they are.
    for _ in 0..2 {
        node.restart_agent().await;
        is_over(&node.see().status);
    }
    node.pods.set_shutting_down(false);
    sleep(SETTLE).await;
    assert_eq!((node.see().status.phase, node.container("web").restart_count), (PodPhase::Running, 1));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_second_shutdown_counts() {
    let node = Node::new();
    node.run_manifest(&pod("a", Always, &[], &["web"]));
    sleep(KEPT).await;
    node.fake.with(|state| state.obey = Some(Duration::from_secs(5)));
    node.pods.set_shutting_down(true);
    node.pods.evict(&uid("a"), Eviction::node_shutdown(Duration::from_secs(10)));
    sleep(Duration::from_secs(1)).await;
    node.pods.set_shutting_down(false);
    sleep(SETTLE).await;
    node.shut_down(10).await;
    sleep(Duration::from_secs(100)).await;
    is_over(&node.see().status);
    assert_eq!(node.fake.count(Verb::Create), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_shutdown_ended_can_be_removed() {
    let node = Node::new();
    node.run_manifest(&pod("a", Always, &[], &["web"]));
    sleep(KEPT).await;
    node.shut_down(10).await;
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
    node.pods.set_shutting_down(false);
    sleep(SETTLE).await;
    assert_eq!(node.fake.count(Verb::Create), 1);
}
