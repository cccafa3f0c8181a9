//! Sidecars: init containers that go on running beside those after them.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_model::{ContainerId, ContainerState, PodConditionType, PodPhase, ProbeKind, RestartPolicy};
use tokio::time::{Instant, sleep};

use super::fake::Verb;
use super::node::{Node, POLICY, SETTLE, uid};
use super::planning::{plan_of, plan_with, ready};
use super::values::{created, exited, image, pod_with_sidecars, probe, running};
use crate::action::Action;
use crate::plan::{Stop, Timer, terminate};
use crate::ports::{Findings, ObservedContainer, ProbeFailed};
use crate::record::Progress;
use crate::scene::Scene;

use RestartPolicy::{Always, Never, OnFailure};

fn started(container: &ObservedContainer, started: bool) -> (ContainerId, Progress) {
    let findings = Findings { started, ready: started, failed: None };
    (container.id, Progress { findings: Some(findings), ..Progress::default() })
}

#[test]
fn those_after_a_sidecar_wait_until_it_has_started() {
    // The places: one 0, proxy 1 (sidecar), two 2, shipper 3 (sidecar), web 4, log 5.
    let mut pod = pod_with_sidecars(Always);
    pod.spec.init_containers[1].probes.startup = Some(probe());
    let create = |index| Action::Create(index, 0, image());
    let (one, proxy, two, shipper) =
        (exited("one", 0, 0), running("proxy", 0), exited("two", 0, 0), running("shipper", 0));
    for (containers, proxy_started, expected) in [
        (vec![one.clone()], false, vec![create(1)]),
        (vec![one.clone(), created("proxy", 0)], false, vec![Action::Start(1, created("proxy", 0).id)]),
        (vec![one.clone(), proxy.clone()], false, vec![]),
        (vec![one.clone(), proxy.clone()], true, vec![create(2)]),
        (vec![one.clone(), proxy.clone(), running("two", 0)], true, vec![]),
        (vec![one.clone(), proxy.clone(), two.clone()], true, vec![create(3)]),
        // The last sidecar has no startup probe.
        (vec![one.clone(), proxy.clone(), two.clone(), shipper.clone()], true, vec![create(4), create(5)]),
        // What became of an earlier one holds up nobody any more.
        (
            vec![one.clone(), exited("proxy", 0, 1), two.clone(), shipper.clone()],
            true,
            vec![Action::Create(1, 1, image()), create(4), create(5)],
        ),
        (
            vec![one.clone(), exited("proxy", 0, 0), running("two", 0)],
            true,
            vec![Action::Create(1, 1, image())],
        ),
        (vec![one.clone(), proxy.clone(), two.clone(), shipper.clone()], false, vec![create(4), create(5)]),
    ] {
        let text = format!("{containers:?} {proxy_started}");
        let progress = BTreeMap::from([started(&proxy, proxy_started)]);
        let plan = plan_with(&pod, &ready(containers), &progress, &BTreeMap::new());
        let made = plan.actions.iter().filter(|action| !matches!(action, Action::EnsureImage(..)));
        assert_eq!(made.cloned().collect::<Vec<_>>(), expected, "{text}");
        assert_eq!(plan.outcome, None, "{text}");
    }
}

#[test]
fn a_sidecar_that_ended_before_those_after_it_began_is_started_again_first() {
    for code in [0, 1] {
        let all = vec![exited("one", 0, 0), exited("proxy", 0, code)];
        let plan = plan_of(&pod_with_sidecars(Never), &ready(all));
        assert_eq!(plan.actions, [Action::Create(1, 1, image())], "{code}");
    }
}

#[test]
fn a_sidecar_keeps_no_pod_alive() {
    let inits =
        || vec![exited("one", 0, 0), running("proxy", 0), exited("two", 0, 0), exited("shipper", 3, 1)];
    for (policy, web, log, outcome) in [
        (Never, 0, 0, Some(PodPhase::Succeeded)),
        (Never, 0, 1, Some(PodPhase::Failed)),
        (OnFailure, 0, 0, Some(PodPhase::Succeeded)),
        (OnFailure, 0, 1, None),
        (Always, 0, 0, None),
    ] {
        let all = [inits(), vec![exited("web", 0, web), exited("log", 0, log)]].concat();
        let plan = plan_of(&pod_with_sidecars(policy), &ready(all));
        assert_eq!(plan.outcome, outcome, "{policy:?} {web} {log}");
        let restarted = plan.actions.contains(&Action::Create(3, 4, image()));
        assert_eq!(restarted, outcome.is_none(), "{policy:?} {web} {log}: a sidecar runs while the pod does");
    }
}

#[test]
fn sidecars_end_last_and_in_reverse_order() {
    let pod = pod_with_sidecars(Always);
    let (one, proxy, shipper) = (running("one", 0), running("proxy", 0), running("shipper", 0));
    let (web, log) = (running("web", 0), running("log", 0));
    let minute = Duration::from_secs(60);
    let stop = |container: &ObservedContainer, grace| Action::Stop(container.id, grace);
    for (containers, left, expected) in [
        (vec![&proxy, &shipper, &web, &log], minute, vec![&web, &log]),
        (vec![&proxy, &shipper, &log], minute, vec![&log]),
        (vec![&proxy, &shipper], minute, vec![&shipper]),
        (vec![&proxy], minute, vec![&proxy]),
        // While the pod initializes there is no app container to wait for.
        (vec![&one, &proxy], minute, vec![&one, &proxy]),
        // Once the time is over nobody waits for anybody.
        (vec![&proxy, &shipper, &web], Duration::ZERO, vec![&proxy, &shipper, &web]),
    ] {
        let stops = containers.iter().map(|one| (one.id, Stop { left, ..Stop::default() })).collect();
        let observed = ready(containers.iter().map(|one| (*one).clone()).collect());
        let (progress, round) = (BTreeMap::new(), BTreeMap::new());
        let scene =
            Scene { pod: &pod, observed: &observed, progress: &progress, round: &round, restarting: false };
        let mut timer = Timer::default();
        let grace = left.max(Duration::from_secs(2));
        let expected: Vec<_> = expected.into_iter().map(|container| stop(container, grace)).collect();
        assert_eq!(terminate(&scene, &stops, &mut timer), expected, "{containers:?} {left:?}");
        let waits = expected.len() < containers.len();
        assert_eq!(timer.0, waits.then_some(left), "who waits does so until the time is over");
    }
}

/// A node whose pod with sidecars runs.
async fn running_node(policy: RestartPolicy) -> Node {
    let node = Node::new();
    node.run_pod(&pod_with_sidecars(policy)).await;
    for init in ["one", "two"] {
        node.exit(init, 0);
        sleep(SETTLE).await;
    }
    assert_eq!(node.see().status.phase, PodPhase::Running);
    assert!(node.condition(PodConditionType::Initialized) && node.condition(PodConditionType::Ready));
    node
}

/// In which order containers were sent the stop signal.
fn signalled(node: &Node) -> Vec<String> {
    node.fake.with(|state| {
        let mut all: Vec<_> = state.signalled.iter().map(|(id, at)| (*at, state.names[id].clone())).collect();
        all.sort();
        all.into_iter().map(|(_, name)| name).collect()
    })
}

#[tokio::test(start_paused = true)]
async fn a_pod_ends_with_its_app_containers_and_its_sidecars_after_them() {
    let node = running_node(OnFailure).await;
    node.exit("web", 0);
    sleep(SETTLE).await;
    node.fake.with(|state| state.obey = Some(Duration::from_secs(5)));
    node.exit("log", 0);
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Running, "until the last of it has ended");
    sleep(Duration::from_secs(11)).await;
    assert_eq!(signalled(&node), ["shipper", "proxy"]);
    let status = node.see().status;
    assert_eq!(status.phase, PodPhase::Succeeded, "how sidecars end does not matter");
    let ContainerState::Terminated(proxy) = &node.container("proxy").state else { panic!() };
    assert_eq!(proxy.exit_code, 143);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_removal_ends_app_containers_first_and_all_within_one_grace_period() {
    let node = running_node(Always).await;
    node.fake.with(|state| state.obey = Some(Duration::from_secs(4)));
    node.pods.terminate(&uid("a"), None);
    node.gone(Duration::from_secs(13)).await;
    let order = signalled(&node);
    assert_eq!(order[2..], ["shipper", "proxy"], "{order:?}");

    // With app containers that ignore the signal, sidecars have the two seconds everybody has.
    let node = running_node(Always).await;
    node.fake.with(|state| state.obey = None);
    let began = Instant::now();
    node.pods.terminate(&uid("a"), None);
    node.gone(Duration::from_secs(33)).await;
    assert_eq!(began.elapsed().as_secs(), 32);
}

#[tokio::test(start_paused = true)]
async fn a_pods_end_goes_on_in_the_next_agent() {
    let mut node = running_node(Never).await;
    node.fake.with(|state| state.obey = None);
    let began = Instant::now();
    for app in ["web", "log"] {
        node.exit(app, 0);
    }
    sleep(Duration::from_secs(20)).await;
    node.restart_agent().await;
    while node.see().status.phase == PodPhase::Running {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(node.see().status.phase, PodPhase::Succeeded);
    assert_eq!(began.elapsed().as_secs(), 32, "within the one grace period");
    assert_eq!(node.fake.count(Verb::Create), 6, "nothing was started again");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_is_started_again_whatever_it_exits_with_and_backs_off() {
    let node = running_node(Never).await;
    node.exit("proxy", 0);
    sleep(SETTLE).await;
    assert_eq!(node.container("proxy").restart_count, 1);
    assert!(node.condition(PodConditionType::Initialized), "an initialized pod stays so");
    node.exit("proxy", 0);
    sleep(SETTLE).await;
    assert_eq!(node.waits().unwrap().0, "CrashLoopBackOff");
    assert_eq!(node.see().status.phase, PodPhase::Running);
    assert!(!node.condition(PodConditionType::ContainersReady), "sidecars count");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(node.container("proxy").restart_count, 2);
    assert!(node.condition(PodConditionType::ContainersReady));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_sidecars_probes_are_heeded() {
    let node = Node::new();
    let mut pod = pod_with_sidecars(Never);
    pod.spec.init_containers[1].probes.startup = Some(probe());
    pod.spec.init_containers[1].probes.readiness = Some(probe());
    node.run_pod(&pod).await;
    node.exit("one", 0);
    sleep(SETTLE).await;
    let failed = Some(ProbeFailed { kind: ProbeKind::Startup, grace: None });
    node.find("proxy", |findings| findings.failed = failed).await;
    assert_eq!(node.told("Killing", "proxy"), ["Init container proxy failed startup probe"]);
    assert_eq!(node.container("proxy").restart_count, 1);
    assert_eq!(node.see().status.phase, PodPhase::Pending);
    assert!(node.container("two").container_id.is_none());
    node.find("proxy", |findings| findings.started = true).await;
    assert!(node.container("two").container_id.is_some());
    node.exit("two", 0);
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Running);
    assert!(!node.condition(PodConditionType::Ready), "it is not ready yet");
    node.find("proxy", |findings| findings.ready = true).await;
    assert!(node.condition(PodConditionType::Ready));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn sidecars_start_again_in_a_new_sandbox() {
    let node = running_node(POLICY).await;
    node.fake.kill_sandbox(&node.pods, &uid("a"));
    sleep(SETTLE).await;
    let runs = |name: &str| matches!(node.container(name).state, ContainerState::Running(_));
    assert!(runs("one") && !runs("proxy") && !runs("web"));
    node.exit("one", 0);
    sleep(SETTLE).await;
    assert!(runs("proxy") && runs("two") && !runs("web"));
    node.exit("two", 0);
    sleep(SETTLE).await;
    for name in ["proxy", "shipper", "web", "log"] {
        assert!(runs(name), "{name}");
        assert_eq!(node.container(name).restart_count, 1, "{name}");
    }
    node.well_behaved();
}
