//! What outlasts a reboot of the machine.

use std::time::Duration;

use coracle_model::{ContainerState, PodPhase, RestartAction, RestartPolicy, RestartRule};
use tokio::time::sleep;

use super::fake::Verb;
use super::node::{Node, SETTLE, uid};
use super::values::{pod, pod_with_sidecars};
use crate::WorkerPhase;

use RestartPolicy::{Always, Never, OnFailure};

/// What is seen goes on record within this time.
const KEPT: Duration = Duration::from_secs(2);

impl Node {
    /// The machine is booted again, and the next agent takes over what is left.
    async fn reboot(&mut self) {
        self.pods.detach().await;
        self.fake.reboot();
        self.pods = self.fake.take_over();
        sleep(SETTLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_had_ended_stays_ended() {
    let mut node = Node::new();
    node.run(OnFailure, &[], &["job"]).await;
    node.exit("job", 0);
    sleep(SETTLE).await;
    let before = node.see().status;
    let sandboxes = node.fake.count(Verb::Sandbox);
    for _ in 0..2 {
        node.reboot().await;
        sleep(Duration::from_secs(1000)).await;
        let seen = node.see();
        assert_eq!((&seen.status, seen.phase), (&before, WorkerPhase::Terminated));
    }
    assert_eq!(node.fake.count(Verb::Sandbox), sandboxes);
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn what_ran_counts_as_ended_with_the_machine_and_restart_counts_go_on() {
    let mut node = Node::new();
    node.run(Always, &["setup"], &["web"]).await;
    node.exit("setup", 0);
    sleep(SETTLE).await;
    node.exit("web", 7);
    sleep(KEPT).await;
    let start_time = node.see().status.start_time;
    node.reboot().await;
    assert_eq!(node.see().status.start_time, start_time);
    let setup = node.container("setup");
    assert!(matches!(setup.state, ContainerState::Running(_)), "init containers run again: {setup:?}");
    assert_eq!(setup.restart_count, 1);
    node.exit("setup", 0);
    sleep(SETTLE).await;
    let web = node.container("web");
    assert!(matches!(web.state, ContainerState::Running(_)), "{web:?}");
    assert_eq!(web.restart_count, 2);
    let last = web.last_state.unwrap();
    assert_eq!((last.exit_code, last.reason.as_str()), (255, "Unknown"));
    // Ending with the machine was no crash.
    node.exit("web", 1);
    sleep(SETTLE).await;
    assert_eq!(node.container("web").restart_count, 3);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn the_policy_says_what_becomes_of_what_ran() {
    for (policy, codes, phase) in [
        (Never, [None, None], PodPhase::Failed),
        (Never, [Some(0), None], PodPhase::Failed),
        (OnFailure, [Some(0), None], PodPhase::Running),
        (Always, [Some(0), None], PodPhase::Running),
    ] {
        let mut node = Node::new();
        node.run(policy, &[], &["web", "log"]).await;
        for (name, code) in ["web", "log"].into_iter().zip(codes) {
            if let Some(code) = code {
                node.exit(name, code);
            }
        }
        sleep(KEPT).await;
        node.reboot().await;
        let text = format!("{policy:?} {codes:?}");
        assert_eq!(node.see().status.phase, phase, "{text}");
        let web = node.container("web");
        let again = matches!(web.state, ContainerState::Running(_));
        assert_eq!(again, policy == Always, "what had succeeded is not run again: {text}: {web:?}");
        node.well_behaved();
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_carried_through_after_a_reboot() {
    let mut node = Node::new();
    node.run(Always, &[], &["web"]).await;
    node.fake.with(|state| state.obey = None);
    node.pods.terminate(&uid("a"), None);
    sleep(KEPT).await;
    node.reboot().await;
    node.gone(SETTLE).await;
    assert_eq!(node.fake.count(Verb::Sandbox), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_across_a_reboot() {
    let mut node = Node::new();
    let mut pod = pod("a", Always, &[], &["web"]);
    pod.spec.active_deadline = Some(Duration::from_secs(60));
    node.run_pod(&pod).await;
    sleep(Duration::from_secs(50)).await;
    node.reboot().await;
    assert_eq!(node.see().status.phase, PodPhase::Running);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(node.see().status.reason.as_deref(), Some("DeadlineExceeded"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_all_is_carried_through_after_a_reboot() {
    let mut node = Node::new();
    let mut pod = pod_with_sidecars(Never);
    let action = RestartAction::RestartAllContainers;
    pod.spec.containers[0].restart_policy = Some(Never);
    pod.spec.containers[0].restart_rules = vec![RestartRule { action, among: true, exit_codes: vec![42] }];
    node.run_pod(&pod).await;
    for init in ["one", "two"] {
        node.exit(init, 0);
        sleep(SETTLE).await;
    }
    node.fake.with(|state| state.obey = None);
    node.exit("web", 42);
    sleep(KEPT - SETTLE).await;
    node.reboot().await;
    for init in ["one", "two"] {
        node.exit(init, 0);
        sleep(SETTLE).await;
    }
    for name in ["one", "proxy", "two", "shipper", "web", "log"] {
        assert_eq!(node.container(name).restart_count, 1, "{name}");
    }
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_starts_waits_for_no_checkpoint() {
    let node = Node::new();
    node.fake.hang(Verb::Checkpoint);
    node.run(Always, &[], &["web"]).await;
    assert_eq!(node.see().status.phase, PodPhase::Running);
    assert_eq!(node.fake.count(Verb::Checkpoint), 0);
    sleep(KEPT).await;
    assert_eq!(node.fake.count(Verb::Checkpoint), 1);
    node.exit("web", 1);
    sleep(SETTLE).await;
    assert_eq!(node.container("web").restart_count, 1);
    // What is written cannot be taken back: the pod goes once it was.
    node.pods.terminate(&uid("a"), None);
    sleep(SETTLE).await;
    assert_eq!(node.fake.count(Verb::Forget), 0);
    node.fake.heal();
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_written_is_tried_again() {
    let node = Node::new();
    node.fake.fail(Verb::Checkpoint, 2);
    node.run(Never, &[], &["web"]).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(node.fake.count(Verb::Checkpoint), 3);
    assert_eq!(node.fake.with(|state| state.checkpoints.len()), 1);
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(node.fake.count(Verb::Checkpoint), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_now_and_then_wears_no_disk() {
    let node = Node::new();
    let mut pod = pod("a", Always, &[], &["web"]);
    pod.spec.containers[0].probes.readiness = Some(super::values::probe());
    node.run_pod(&pod).await;
    sleep(KEPT).await;
    for ready in [true, false, true, false] {
        node.find("web", |findings| findings.ready = ready).await;
        sleep(KEPT).await;
    }
    assert_eq!(node.fake.count(Verb::Checkpoint), 1);
}
