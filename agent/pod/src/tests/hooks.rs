//! postStart and preStop hooks, and the grace period they are part of.

use std::time::Duration;

use coracle_model::{ContainerState, Handler, Lifecycle, Pod, PodPhase, ProbeKind, RestartPolicy};
use tokio::time::{Instant, sleep};

use super::fake::Verb;
use super::node::{Node, POLICY, SETTLE, uid};
use super::values::{pod, pod_with_sidecars, probe};
use crate::ports::ProbeFailed;

fn sleeping(seconds: u64) -> Option<Handler> {
    Some(Handler::Sleep(Duration::from_secs(seconds)))
}

fn hooked(apps: &[&str], post_start: Option<Handler>, pre_stop: Option<Handler>) -> Pod {
    let mut pod = pod("a", POLICY, &[], apps);
    pod.spec.containers[0].lifecycle = Lifecycle { post_start, pre_stop, stop_signal: None };
    pod
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// Runs a pod whose first container has this preStop hook, and removes it; how long it took.
async fn removal(node: &Node, pre_stop: Option<Handler>, obey: Option<Duration>, grace: u64) -> Duration {
    node.run_pod(&hooked(&["web"], None, pre_stop)).await;
    node.fake.with(|state| state.obey = obey);
    let began = Instant::now();
    node.pods.terminate(&uid("a"), seconds(grace));
    node.gone(Duration::from_secs(100)).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_container_runs_once_its_post_start_hook_is_done_and_those_after_it_wait() {
    let node = Node::new();
    let mut pod = hooked(&["web", "log"], sleeping(5), None);
    pod.spec.containers[0].probes.readiness = Some(probe());
    node.run_pod(&pod).await;
    let waits = |name: &str| {
        matches!(&node.container(name).state,
        ContainerState::Waiting(waiting) if waiting.reason == "ContainerCreating")
    };
    assert!(waits("web") && waits("log"));
    assert_eq!(node.see().status.phase, PodPhase::Pending);
    assert_eq!(node.fake.count(Verb::Start), 1);
    assert_eq!(node.fake.probed(&uid("a")), []);
    sleep(Duration::from_secs(5)).await;
    assert!(!waits("web") && !waits("log"));
    assert!(node.container("web").started);
    assert_eq!(node.fake.probed(&uid("a")), [("web".to_owned(), false)]);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_ends_the_container() {
    let node = Node::new();
    node.fake.fail(Verb::PostStart, 2);
    let mut pod = hooked(&["web", "log"], sleeping(0), sleeping(0));
    pod.spec.containers[0].lifecycle.post_start = sleeping(1);
    node.run_pod(&pod).await;
    assert_eq!(
        node.told("FailedPostStartHook", "web")[0],
        "PostStartHook failed",
        "what it said is no event"
    );
    assert_eq!(node.told("Killing", "web")[0], "FailedPostStartHook");
    assert!(node.fake.count(Verb::PreStop) > 0, "it is ended as any other");
    assert!(matches!(node.container("log").state, ContainerState::Running(_)), "others go on");
    sleep(SETTLE).await;
    // The second time it is in a crash loop, and then all is well.
    assert_eq!(node.waits().unwrap().0, "CrashLoopBackOff");
    sleep(Duration::from_secs(12)).await;
    assert_eq!(node.container("web").restart_count, 2);
    assert!(matches!(node.container("web").state, ContainerState::Running(_)));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_is_seen_while_the_container_ends() {
    let node = Node::new();
    node.fake.fail(Verb::PostStart, 1);
    node.fake.with(|state| state.obey = seconds(3));
    node.run_pod(&hooked(&["web"], sleeping(1), None)).await;
    let (reason, message) = node.waits().unwrap();
    assert_eq!(reason, "PostStartHookError");
    assert_eq!(message.unwrap(), "PostStart was made to fail");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_never_restarted_fails_with_its_post_start_hook() {
    let node = Node::new();
    node.fake.fail(Verb::PostStart, 1);
    let mut pod = hooked(&["web"], sleeping(1), None);
    pod.spec.restart_policy = RestartPolicy::Never;
    node.run_pod(&pod).await;
    assert_eq!(node.see().status.phase, PodPhase::Failed);
    assert!(matches!(node.container("web").state, ContainerState::Terminated(_)));
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_is_carried_out_again_unless_it_is_known_to_be_done() {
    let mut node = Node::new();
    node.run_pod(&hooked(&["web"], sleeping(5), None)).await;
    node.restart_agent().await;
    assert_eq!(node.fake.count(Verb::PostStart), 2, "nobody knows how far it got");
    sleep(Duration::from_secs(6)).await;
    node.restart_agent().await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(node.fake.count(Verb::PostStart), 2);
    assert!(matches!(node.container("web").state, ContainerState::Running(_)));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_removal_overtakes_a_post_start_hook() {
    let node = Node::new();
    node.run_pod(&hooked(&["web"], sleeping(1000), None)).await;
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn the_pre_stop_hook_is_part_of_the_grace_period() {
    for (hook, obey, grace, took) in [
        // The hook, then the signal.
        (5, seconds(3), 30, 8),
        // What the hook has left.
        (5, None, 30, 30),
        // The signal has two seconds at least: once the hook has taken all of the time,
        (30, None, 30, 32),
        // and once it has taken more than there is.
        (100, None, 30, 32),
        (100, seconds(1), 30, 31),
        (0, None, 1, 2),
        (0, None, 0, 2),
    ] {
        let node = Node::new();
        let elapsed = removal(&node, sleeping(hook), obey, grace).await;
        let text = format!("hook {hook} s, obeys after {obey:?}, grace period {grace} s");
        assert_eq!(elapsed.as_secs(), took, "{text}");
        assert_eq!(node.fake.count(Verb::PreStop), usize::from(grace > 0), "{text}");
        let late = node.told("FailedPreStopHook", "web");
        assert_eq!(!late.is_empty(), hook >= grace && grace > 0 && hook > 0, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_pre_stop_hook_is_told_and_holds_up_nothing() {
    let node = Node::new();
    node.fake.fail(Verb::PreStop, 1);
    let elapsed = removal(&node, sleeping(5), seconds(1), 30).await;
    assert_eq!(elapsed.as_secs(), 1);
    assert_eq!(node.told("FailedPreStopHook", "web"), ["PreStopHook failed"]);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_cuts_the_hook_short() {
    let node = Node::new();
    node.run_pod(&hooked(&["web"], None, sleeping(50))).await;
    node.fake.with(|state| state.obey = None);
    let began = Instant::now();
    node.pods.terminate(&uid("a"), seconds(60));
    sleep(Duration::from_secs(10)).await;
    node.pods.terminate(&uid("a"), seconds(5));
    node.gone(Duration::from_secs(8)).await;
    assert_eq!(began.elapsed().as_secs(), 17, "five seconds, and two for the signal");

    // Once the signal has had its two seconds, nothing more is waited for.
    let node = Node::new();
    node.run_pod(&hooked(&["web"], None, None)).await;
    node.fake.with(|state| state.obey = None);
    node.pods.terminate(&uid("a"), seconds(60));
    sleep(Duration::from_secs(10)).await;
    node.pods.terminate(&uid("a"), seconds(0));
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_begins_at_the_hook_again_with_what_is_left() {
    let mut node = Node::new();
    node.run_pod(&hooked(&["web"], None, sleeping(20))).await;
    node.fake.with(|state| state.obey = None);
    let began = Instant::now();
    node.pods.terminate(&uid("a"), seconds(30));
    sleep(Duration::from_secs(15)).await;
    node.restart_agent().await;
    assert_eq!(node.fake.count(Verb::PreStop), 2);
    node.gone(Duration::from_secs(20)).await;
    assert_eq!(began.elapsed().as_secs(), 32);
}

#[tokio::test(start_paused = true)]
async fn a_hook_goes_on_when_the_pod_is_removed_meanwhile() {
    let node = Node::new();
    let mut pod = hooked(&["web"], None, sleeping(10));
    pod.spec.containers[0].probes.liveness = Some(probe());
    node.run_pod(&pod).await;
    let failed = Some(ProbeFailed { kind: ProbeKind::Liveness, grace: None });
    node.find("web", |findings| findings.failed = failed).await;
    sleep(Duration::from_secs(5)).await;
    let began = Instant::now();
    node.pods.terminate(&uid("a"), seconds(30));
    node.gone(Duration::from_secs(10)).await;
    assert_eq!(began.elapsed().as_secs(), 4, "the rest of it");
    assert_eq!(node.fake.count(Verb::PreStop), 1);
}

#[tokio::test(start_paused = true)]
async fn no_hook_is_carried_out_in_what_is_dead() {
    let node = Node::new();
    node.run_pod(&hooked(&["web"], None, sleeping(10))).await;
    node.exit("web", 1);
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
    assert_eq!(node.fake.count(Verb::PreStop), 0);

    // A container that ends during its hook ends the hook, too.
    let node = Node::new();
    node.run_pod(&hooked(&["web"], None, sleeping(10))).await;
    node.pods.terminate(&uid("a"), None);
    sleep(Duration::from_secs(1)).await;
    node.fake.kill_sandbox(&node.pods, &uid("a"));
    node.gone(SETTLE).await;
    assert_eq!(node.fake.count(Verb::Stop), 0);
}

#[tokio::test(start_paused = true)]
async fn sidecars_run_their_hooks_at_once_and_are_signalled_when_it_is_their_turn() {
    let node = Node::new();
    let mut pod = pod_with_sidecars(POLICY);
    pod.spec.init_containers[1].lifecycle.pre_stop = sleeping(1);
    pod.spec.containers[0].lifecycle.pre_stop = sleeping(10);
    node.run_pod(&pod).await;
    for init in ["one", "two"] {
        node.exit(init, 0);
        sleep(SETTLE).await;
    }
    let began = Instant::now();
    node.pods.terminate(&uid("a"), None);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(node.fake.count(Verb::PreStop), 2);
    let lives = |name: &str| matches!(node.container(name).state, ContainerState::Running(_));
    assert!(lives("proxy") && lives("shipper") && !lives("log"));
    node.gone(Duration::from_secs(10)).await;
    assert_eq!(began.elapsed().as_secs(), 10);
}
