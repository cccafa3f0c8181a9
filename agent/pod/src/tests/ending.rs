//! Pods that the node ends: past their deadline, or for its own sake.

use std::time::Duration;

use coracle_model::{ContainerState, Handler, Pod, PodConditionType, PodPhase};
use tokio::time::{Instant, sleep};

use super::fake::Verb;
use super::node::{Node, POLICY, SETTLE, uid};
use super::values::pod;
use crate::{Eviction, WorkerPhase};

fn limited(seconds: u64) -> Pod {
    let mut pod = pod("a", POLICY, &[], &["web"]);
    pod.spec.active_deadline = Some(Duration::from_secs(seconds));
    pod
}

fn eviction(grace: Option<u64>) -> Eviction {
    let grace = grace.map(Duration::from_secs);
    Eviction {
        reason: "Evicted",
        message: "The node was low on resource: memory.".to_owned(),
        grace,
        shutdown: false,
    }
}

async fn ended(node: &Node) {
    while node.see().phase < WorkerPhase::Terminated {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_past_its_deadline_fails() {
    let node = Node::new();
    let began = Instant::now();
    let mut pod = limited(60);
    pod.spec.containers[0].lifecycle.pre_stop = Some(Handler::Sleep(Duration::from_secs(3)));
    node.run_pod(&pod).await;
    sleep(Duration::from_secs(59)).await;
    assert!(node.condition(PodConditionType::Ready));
    sleep(Duration::from_secs(2)).await;
    let seen = node.see();
    assert_eq!(seen.phase, WorkerPhase::Terminating);
    assert_eq!(seen.status.phase, PodPhase::Running, "until the last of it has ended");
    assert!(!node.condition(PodConditionType::Ready), "but it is not to be sent any more work");
    ended(&node).await;
    assert_eq!(began.elapsed().as_secs(), 63, "with its hook");
    let status = node.see().status;
    assert_eq!((status.phase, status.reason.as_deref()), (PodPhase::Failed, Some("DeadlineExceeded")));
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(status.message.as_deref(), Some(message));
    let told = node.fake.told(&uid("a")).into_iter();
    let told: Vec<_> = told.filter(|told| told.reason == "DeadlineExceeded").collect();
    assert_eq!((told.len(), told[0].message.as_str()), (1, message));
    assert!(matches!(node.container("web").state, ContainerState::Terminated(_)));
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_the_pods_start_in_every_agent_and_for_a_pod_that_cannot_start() {
    let mut node = Node::new();
    node.fake.fail(Verb::Image, u32::MAX);
    let began = Instant::now();
    node.run_pod(&limited(60)).await;
    sleep(Duration::from_secs(30)).await;
    node.restart_agent().await;
    ended(&node).await;
    assert_eq!(began.elapsed().as_secs(), 60);
    assert_eq!(node.see().status.reason.as_deref(), Some("DeadlineExceeded"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passed_while_no_agent_ran_is_kept_by_the_next() {
    let mut node = Node::new();
    node.run_pod(&limited(60)).await;
    node.pods.detach().await;
    sleep(Duration::from_secs(100)).await;
    node.restart_agent().await;
    ended(&node).await;
    assert_eq!(node.see().status.reason.as_deref(), Some("DeadlineExceeded"));
    // And it stays so.
    node.restart_agent().await;
    assert_eq!(node.see().status.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(node.fake.count(Verb::Create), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_by_deadline_goes_on_in_the_next_agent() {
    let mut node = Node::new();
    let began = Instant::now();
    node.run_pod(&limited(60)).await;
    node.fake.with(|state| state.obey = None);
    sleep(Duration::from_secs(70)).await;
    node.restart_agent().await;
    ended(&node).await;
    assert_eq!(began.elapsed().as_secs(), 90, "within the one grace period");
    assert_eq!(node.see().status.reason.as_deref(), Some("DeadlineExceeded"));
    let told = node.fake.told(&uid("a")).into_iter();
    assert_eq!(told.filter(|told| told.reason == "DeadlineExceeded").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_before_its_deadline_is_not_touched_by_it() {
    let node = Node::new();
    let mut pod = limited(60);
    pod.spec.restart_policy = coracle_model::RestartPolicy::Never;
    node.run_pod(&pod).await;
    node.exit("web", 0);
    sleep(Duration::from_secs(100)).await;
    let status = node.see().status;
    assert_eq!((status.phase, status.reason.as_deref()), (PodPhase::Succeeded, None));
}

#[tokio::test(start_paused = true)]
async fn an_evicted_pod_fails_for_the_nodes_sake() {
    for (asked, seconds) in [(None, 30), (Some(5), 5), (Some(100), 30)] {
        let node = Node::new();
        node.run(POLICY, &[], &["web"]).await;
        node.fake.with(|state| state.obey = None);
        let began = Instant::now();
        assert!(node.pods.evict(&uid("a"), eviction(asked)));
        sleep(SETTLE).await;
        assert!(node.condition(PodConditionType::DisruptionTarget));
        assert!(!node.condition(PodConditionType::Ready));
        ended(&node).await;
        assert_eq!(began.elapsed().as_secs(), seconds, "{asked:?}");
        let status = node.see().status;
        assert_eq!((status.phase, status.reason.as_deref()), (PodPhase::Failed, Some("Evicted")));
        let target =
            status.conditions.iter().find(|it| it.kind == PodConditionType::DisruptionTarget).unwrap();
        assert_eq!(target.reason.as_deref(), Some("TerminationByKubelet"));
        assert_eq!(target.message, status.message);
        node.pods.terminate(&uid("a"), None);
        node.gone(SETTLE).await;
    }
    assert!(!Node::new().pods.evict(&uid("a"), eviction(None)));
}

#[tokio::test(start_paused = true)]
async fn an_eviction_shortens_the_end_that_is_under_way_and_changes_no_other() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    node.fake.with(|state| state.obey = None);
    node.pods.terminate(&uid("a"), None);
    sleep(Duration::from_secs(3)).await;
    node.pods.evict(&uid("a"), eviction(Some(1)));
    node.gone(Duration::from_secs(2)).await;

    let node = Node::new();
    node.run(coracle_model::RestartPolicy::Never, &[], &["web"]).await;
    node.exit("web", 0);
    sleep(SETTLE).await;
    node.pods.evict(&uid("a"), eviction(None));
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_taken_up_has_failed_with_that_for_good() {
    let mut node = Node::new();
    let mut pod = pod("a", POLICY, &[], &["web"]);
    pod.annotations.insert("refuse".to_owned(), "it is not to be".to_owned());
    node.run_pod(&pod).await;
    for _ in 0..2 {
        ended(&node).await;
        let status = node.see().status;
        assert_eq!((status.phase, status.reason.as_deref()), (PodPhase::Failed, Some("Forbidden")));
        assert_eq!(status.message.as_deref(), Some("Pod was rejected: it is not to be"));
        assert!(status.container_statuses.is_empty(), "none of it was ever made");
        node.restart_agent().await;
    }
    for verb in [Verb::Sandbox, Verb::Volumes, Verb::Image] {
        assert_eq!(node.fake.count(verb), 0, "{verb:?}");
    }
    let told = node.fake.told(&uid("a"));
    let told: Vec<_> = told.iter().map(|told| (told.reason.as_str(), told.message.as_str())).collect();
    assert_eq!(told, [("Forbidden", "it is not to be")]);

    // Another pod of its name has another chance.
    pod.uid = uid("b");
    pod.annotations.clear();
    node.pods.terminate(&uid("a"), None);
    node.run_pod(&pod).await;
    assert_eq!(node.pods.get(&uid("b")).unwrap().status.phase, PodPhase::Running);
}
