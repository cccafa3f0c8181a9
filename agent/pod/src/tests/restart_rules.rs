//! Restart policies and rules of single containers, and the restart of all of them.

use std::time::Duration;

use coracle_model::{
    Container, ContainerState, Pod, PodConditionType, PodPhase, RestartAction, RestartPolicy, RestartRule,
};
use tokio::time::sleep;

use super::fake::{CALL, Verb};
use super::node::{Node, SETTLE, uid};
use super::planning::{plan_of, ready};
use super::values::{exited, pod, pod_with_sidecars, running};
use crate::action::Action;

use RestartPolicy::{Always, Never, OnFailure};

fn rule(action: RestartAction, among: bool, exit_codes: &[i32]) -> RestartRule {
    RestartRule { action, among, exit_codes: exit_codes.to_vec() }
}

fn restart_all(container: &mut Container, code: i32) {
    container.restart_policy.get_or_insert(Never);
    container.restart_rules = vec![rule(RestartAction::RestartAllContainers, true, &[code])];
}

#[test]
fn a_containers_rules_come_before_its_policy_and_that_before_the_pods() {
    let restart = |among, codes: &[i32]| rule(RestartAction::Restart, among, codes);
    for (pod_policy, own, rules, code, restarts) in [
        (Never, None, vec![], 1, false),
        (Never, Some(Always), vec![], 0, true),
        (Never, Some(OnFailure), vec![], 0, false),
        (Never, Some(OnFailure), vec![], 1, true),
        (Always, Some(Never), vec![], 1, false),
        (Always, Some(OnFailure), vec![], 0, false),
        (OnFailure, Some(Always), vec![], 0, true),
        (Never, Some(Never), vec![restart(true, &[42, 43])], 42, true),
        (Never, Some(Never), vec![restart(true, &[42, 43])], 1, false),
        (Never, Some(Never), vec![restart(false, &[0, 1])], 42, true),
        (Never, Some(Never), vec![restart(false, &[0, 1])], 1, false),
        (Always, Some(Never), vec![restart(true, &[1]), restart(true, &[2])], 2, true),
        (Always, Some(Always), vec![restart(true, &[42])], 1, true),
        // Rules count beside a policy of the container's own only.
        (Never, None, vec![restart(true, &[42])], 42, false),
    ] {
        let text = format!("{pod_policy:?} {own:?} {rules:?} {code}");
        let mut pod = pod("a", pod_policy, &["init"], &["web", "log"]);
        for container in [&mut pod.spec.init_containers[0], &mut pod.spec.containers[0]] {
            container.restart_policy = own.filter(|policy| container.name != *"init" || *policy != Always);
            container.restart_rules = rules.clone();
        }
        let app =
            plan_of(&pod, &ready(vec![exited("init", 0, 0), exited("web", 0, code), running("log", 0)]));
        let made = app.actions.iter().any(|action| matches!(action, Action::Create(1, 1, _)));
        assert_eq!((made, app.outcome), (restarts, None), "{text}");
        let alone =
            plan_of(&pod, &ready(vec![exited("init", 0, 0), exited("web", 0, code), exited("log", 0, 9)]));
        let over = !restarts && pod_policy == Never;
        assert_eq!(alone.outcome.is_some(), over, "{text}");

        // An init container that succeeded is never started again, and one with `Always` is none.
        if code != 0 && own != Some(Always) {
            let init = plan_of(&pod, &ready(vec![exited("init", 0, code)]));
            let expected = if restarts { None } else { Some(PodPhase::Failed) };
            assert_eq!(init.outcome, expected, "init: {text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_follows_the_policy_of_each_container() {
    let node = Node::new();
    let mut pod = pod("a", Never, &[], &["web", "once"]);
    pod.spec.containers[0].restart_policy = Some(OnFailure);
    node.run_pod(&pod).await;
    node.exit("once", 0);
    node.exit("web", 1);
    sleep(SETTLE).await;
    node.exit("web", 1);
    sleep(SETTLE).await;
    assert_eq!(node.waits().unwrap().0, "CrashLoopBackOff");
    assert_eq!(node.see().status.phase, PodPhase::Running);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(node.container("web").restart_count, 2);
    node.exit("web", 0);
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Succeeded);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_dead_sandbox_ends_no_pod_with_a_container_that_is_restarted() {
    for (own, phase) in [(None, PodPhase::Failed), (Some(OnFailure), PodPhase::Running)] {
        let node = Node::new();
        let mut pod = pod("a", Never, &[], &["web", "log"]);
        pod.spec.containers[0].restart_policy = own;
        node.run_pod(&pod).await;
        node.fake.kill_sandbox(&node.pods, &uid("a"));
        sleep(SETTLE).await;
        assert_eq!(node.see().status.phase, phase, "{own:?}");
        node.well_behaved();
    }
}

/// A pod in which the exit of one container with 42 restarts all.
fn restarted_by(name: &str, policy: RestartPolicy) -> Pod {
    let mut pod = pod_with_sidecars(policy);
    let spec = &mut pod.spec;
    let mut all = spec.init_containers.iter_mut().chain(&mut spec.containers);
    restart_all(all.find(|container| container.name == *name).unwrap(), 42);
    pod
}

async fn finish_inits(node: &Node) {
    for init in ["one", "two"] {
        node.exit(init, 0);
        sleep(SETTLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_containers_are_restarted_from_the_first_init_container_on() {
    for name in ["web", "proxy"] {
        let node = Node::new();
        node.run_pod(&restarted_by(name, Never)).await;
        finish_inits(&node).await;
        // One that has ended for good runs again, too.
        node.exit("log", 0);
        sleep(SETTLE).await;
        let sandboxes = node.fake.count(Verb::Sandbox);
        node.fake.with(|state| state.obey = None);
        assert!(!node.condition(PodConditionType::AllContainersRestarting));

        node.exit(name, 42);
        sleep(SETTLE).await;
        assert!(node.condition(PodConditionType::AllContainersRestarting));
        assert!(node.condition(PodConditionType::Initialized), "an initialized pod stays so");
        assert!(!node.condition(PodConditionType::Ready));
        assert_eq!(node.see().status.phase, PodPhase::Running);
        let ended = node.container("log");
        let ContainerState::Waiting(waiting) = &ended.state else { panic!("{ended:?}") };
        assert_eq!((waiting.reason.as_str(), ended.restart_count), ("RestartingAllContainers", 1));
        assert!(matches!(node.container("shipper").state, ContainerState::Running(_)), "it has two seconds");

        sleep(Duration::from_secs(2)).await;
        assert!(!node.condition(PodConditionType::AllContainersRestarting));
        assert!(matches!(node.container("one").state, ContainerState::Running(_)));
        assert!(matches!(node.container("web").state, ContainerState::Waiting(_)));
        finish_inits(&node).await;
        for container in ["one", "proxy", "two", "shipper", "web", "log"] {
            let seen = node.container(container);
            assert_eq!(seen.restart_count, 1, "{container}");
            let last = seen.last_state.unwrap_or_else(|| panic!("{container} has run before"));
            assert_eq!(
                (last.reason.as_str(), last.exit_code),
                ("RestartingAllContainers", 137),
                "{container}"
            );
        }
        assert_eq!(node.see().status.phase, PodPhase::Running);
        assert_eq!(node.fake.count(Verb::Sandbox), sandboxes, "in the same sandbox");
        node.well_behaved();
    }
}

#[tokio::test(start_paused = true)]
async fn an_init_container_may_restart_all() {
    let node = Node::new();
    node.run_pod(&restarted_by("two", Never)).await;
    node.exit("one", 0);
    sleep(SETTLE).await;
    node.exit("two", 42);
    sleep(SETTLE).await;
    assert!(matches!(node.container("one").state, ContainerState::Running(_)));
    assert_eq!(node.container("proxy").restart_count, 1);
    // A new failure is a failure.
    node.exit("one", 1);
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Failed);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn only_the_one_that_has_all_restarted_backs_off() {
    let node = Node::new();
    node.run_pod(&restarted_by("web", Never)).await;
    for delay in [0, 0, 10] {
        finish_inits(&node).await;
        sleep(Duration::from_secs(delay)).await;
        node.exit("web", 42);
        sleep(SETTLE).await;
    }
    finish_inits(&node).await;
    let (reason, message) = node.waits().unwrap();
    assert_eq!(reason, "CrashLoopBackOff");
    assert_eq!(message.unwrap(), "back-off 20s restarting failed container=web pod=pod_default(a)");
    for name in ["proxy", "log"] {
        assert!(
            matches!(node.container(name).state, ContainerState::Running(_)),
            "{name} was ended, and has not failed"
        );
    }
    // And when such a one fails, it is its first time.
    node.exit("proxy", 1);
    sleep(SETTLE).await;
    assert!(matches!(node.container("proxy").state, ContainerState::Running(_)));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_all_goes_on_in_the_next_agent_and_happens_once() {
    for pause in [0, 1000, 2500] {
        let mut node = Node::new();
        node.run_pod(&restarted_by("web", Never)).await;
        finish_inits(&node).await;
        node.fake.with(|state| state.obey = None);
        node.exit("web", 42);
        sleep(Duration::from_millis(pause)).await;
        node.restart_agent().await;
        sleep(Duration::from_secs(3)).await;
        finish_inits(&node).await;
        for container in ["one", "proxy", "two", "shipper", "web", "log"] {
            assert_eq!(node.container(container).restart_count, 1, "{container}, killed after {pause} ms");
        }
        node.restart_agent().await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(node.container("web").restart_count, 1, "killed after {pause} ms");
        node.well_behaved();
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_all_is_on_record_before_anything_is_made() {
    let node = Node::new();
    node.run_pod(&restarted_by("web", Never)).await;
    finish_inits(&node).await;
    node.fake.hang(Verb::Save);
    node.exit("web", 42);
    sleep(Duration::from_secs(3)).await;
    node.pods.notify(&uid("a"));
    sleep(SETTLE).await;
    assert!(!matches!(node.container("one").state, ContainerState::Running(_)));
    // It does not do that an older version of the record comes through.
    node.fake.heal();
    sleep(CALL / 2).await;
    node.fake.hang(Verb::Save);
    sleep(SETTLE).await;
    assert!(matches!(node.container("one").state, ContainerState::Running(_)));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_removal_overtakes_a_restart_of_all() {
    let node = Node::new();
    node.run_pod(&restarted_by("web", Always)).await;
    finish_inits(&node).await;
    node.fake.with(|state| state.obey = None);
    node.exit("web", 42);
    sleep(SETTLE).await;
    node.pods.terminate(&uid("a"), None);
    node.gone(Duration::from_secs(2)).await;
}
