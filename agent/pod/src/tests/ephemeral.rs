//! Ephemeral containers: added to a pod that is there, made once, counting for nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_model::{ContainerState, Pod, PodPhase, RestartAction, RestartPolicy, RestartRule};
use tokio::time::sleep;

use super::fake::Verb;
use super::node::{Node, POLICY, SETTLE, uid};
use super::planning::{plan_of, plan_with, ready};
use super::values::{created, ephemeral, exited, image, pod, running};
use crate::NotAdded;
use crate::action::Action;
use crate::ephemeral::with;
use crate::plan::{Stop, Timer, terminate};
use crate::ports::{Observed, SandboxState};
use crate::scene::Scene;

use RestartPolicy::{Always, Never, OnFailure};

/// Places: one 0, web 1, log 2, debugger 3.
fn debugged(policy: RestartPolicy, target: Option<&str>) -> Pod {
    with(&pod("a", policy, &["one"], &["web", "log"]), ephemeral("debugger", target)).unwrap()
}

impl Node {
    async fn debug(&self, name: &str, target: Option<&str>) -> Result<(), NotAdded> {
        let added = self.pods.add_ephemeral(&uid("a"), ephemeral(name, target)).await;
        sleep(SETTLE).await;
        added
    }
}

#[test]
fn what_can_be_added() {
    let first = debugged(Always, Some("web"));
    assert_eq!(first.all_containers().last().unwrap().name, "debugger");
    for (name, target, refused) in [
        ("second", None, None),
        ("second", Some("web"), None),
        ("second", Some("one"), None),
        ("web", None, Some("spec.ephemeralContainers[1].name: Duplicate value: \"web\"")),
        ("one", None, Some("spec.ephemeralContainers[1].name: Duplicate value: \"one\"")),
        ("debugger", None, Some("spec.ephemeralContainers[1].name: Duplicate value: \"debugger\"")),
        (
            "second",
            Some("debugger"),
            Some("spec.ephemeralContainers[1].targetContainerName: Not found: \"debugger\""),
        ),
        (
            "second",
            Some("nginx"),
            Some("spec.ephemeralContainers[1].targetContainerName: Not found: \"nginx\""),
        ),
    ] {
        let added = with(&first, ephemeral(name, target));
        assert_eq!(added.err().map(|error| error.to_string()).as_deref(), refused, "{name} {target:?}");
    }
}

#[test]
fn it_is_made_once_beside_whatever_the_others_do() {
    let create = Action::Create(3, 0, image());
    let debugger = || running("debugger", 0);
    for (containers, made) in [
        // Beside init containers that run, wait or fail.
        (vec![], vec![create.clone()]),
        (vec![running("one", 0)], vec![create.clone()]),
        (vec![running("one", 0), created("debugger", 0)], vec![Action::Start(3, created("debugger", 0).id)]),
        (vec![exited("one", 0, 0), running("web", 0), running("log", 0)], vec![create.clone()]),
        (vec![running("one", 0), debugger()], vec![]),
        (vec![running("one", 0), exited("debugger", 0, 0)], vec![]),
        (vec![running("one", 0), exited("debugger", 0, 137)], vec![]),
    ] {
        for policy in [Always, OnFailure, Never] {
            let plan = plan_of(&debugged(policy, None), &ready(containers.clone()));
            let about = |action: &&Action| action.index().is_none_or(|index| index == 3);
            let about: Vec<_> = plan.actions.iter().filter(about).cloned().collect();
            assert_eq!(about, made, "{policy:?} {containers:?}");
            assert_eq!((plan.outcome, plan.stops.len()), (None, 0), "{policy:?} {containers:?}");
        }
    }
}

#[test]
fn it_waits_for_its_target_to_run() {
    let init = || exited("one", 0, 0);
    for (containers, target, waits) in [
        (vec![], "web", true),
        (vec![init(), created("web", 0)], "web", true),
        (vec![init(), exited("web", 0, 1)], "web", true),
        (vec![init(), running("web", 0)], "web", false),
        (vec![init(), running("web", 0)], "log", true),
        (vec![running("one", 0)], "one", false),
        (vec![init(), running("web", 0)], "one", true),
    ] {
        let create = Action::Create(3, 0, image());
        let observed = ready(containers);
        let plan = plan_of(&debugged(Always, Some(target)), &observed);
        assert_eq!(plan.actions.contains(&create), !waits, "{target}: {observed:?}");
        // Who sees all processes anyway needs to wait for nobody.
        let mut shared = debugged(Always, Some(target));
        shared.spec.share_process_namespace = true;
        assert!(plan_of(&shared, &observed).actions.contains(&create), "{target}: {observed:?}");
    }
    // A target of a sandbox that died is none.
    let left = Observed { sandbox_attempt: 1, ..ready(vec![init(), running("web", 0)]) };
    assert!(!plan_of(&debugged(Always, Some("web")), &left).actions.contains(&Action::Create(3, 0, image())));
}

#[test]
fn it_is_made_again_in_no_sandbox() {
    for state in [exited("debugger", 0, 0), exited("debugger", 0, 137)] {
        let containers = vec![exited("one", 0, 0), exited("web", 0, 137), exited("log", 0, 137), state];
        let dead = Observed { sandbox: SandboxState::Dead, ..ready(containers.clone()) };
        let next = Observed { sandbox_attempt: 1, ..ready(containers) };
        for observed in [dead, next] {
            let plan = plan_of(&debugged(Always, None), &observed);
            assert!(!plan.actions.iter().any(|action| action.index() == Some(3)), "{plan:?}");
        }
    }
    let plan = plan_of(
        &debugged(Always, None),
        &Observed { sandbox_attempt: 1, ..ready(vec![running("debugger", 0)]) },
    );
    assert!(plan.actions.contains(&Action::Stop(running("debugger", 0).id, Duration::ZERO)));
}

#[test]
fn it_keeps_no_pod_alive_and_makes_none_fail() {
    let apps = |code| vec![exited("one", 0, 0), exited("web", 0, 0), exited("log", 0, code)];
    for (code, outcome) in [(0, PodPhase::Succeeded), (1, PodPhase::Failed)] {
        for debugger in [None, Some(running("debugger", 0)), Some(exited("debugger", 0, 1))] {
            let all = apps(code).into_iter().chain(debugger).collect();
            assert_eq!(plan_of(&debugged(Never, None), &ready(all)).outcome, Some(outcome), "{code}");
        }
    }
}

#[test]
fn it_runs_on_while_all_others_are_restarted() {
    let mut pod = debugged(Always, None);
    pod.spec.containers[0].restart_policy = Some(Never);
    let action = RestartAction::RestartAllContainers;
    pod.spec.containers[0].restart_rules = vec![RestartRule { action, among: true, exit_codes: vec![42] }];
    let all = vec![exited("one", 0, 0), exited("web", 0, 42), running("log", 0), running("debugger", 0)];
    let plan = plan_with(&pod, &ready(all), &BTreeMap::new(), &BTreeMap::new());
    assert_eq!(plan.stops.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [running("log", 0).id]);
}

#[test]
fn it_ends_with_the_app_containers() {
    let pod = debugged(Always, None);
    let containers = [running("web", 0), running("debugger", 0)];
    let left = Duration::from_secs(60);
    let stops = containers.iter().map(|one| (one.id, Stop { left, ..Stop::default() })).collect();
    let (observed, progress, round) = (ready(containers.to_vec()), BTreeMap::new(), BTreeMap::new());
    let scene =
        Scene { pod: &pod, observed: &observed, progress: &progress, round: &round, restarting: false };
    let expected = containers.map(|one| Action::Stop(one.id, left));
    assert_eq!(terminate(&scene, &stops, &mut Timer::default()), expected);
}

#[tokio::test(start_paused = true)]
async fn it_is_seen_apart_from_the_others_and_survives_the_agent() {
    let mut node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    let before = node.see().status;
    node.debug("debugger", Some("web")).await.unwrap();
    let status = node.see().status;
    assert_eq!(
        (status.phase, &status.conditions, &status.container_statuses),
        (before.phase, &before.conditions, &before.container_statuses)
    );
    let [debugger] = &status.ephemeral_container_statuses[..] else { panic!("{status:?}") };
    assert!(matches!(debugger.state, ContainerState::Running(_)) && !debugger.ready, "{debugger:?}");
    node.restart_agent().await;
    assert_eq!(node.container("debugger"), *debugger);
    node.exit("debugger", 3);
    node.restart_agent().await;
    sleep(Duration::from_secs(1000)).await;
    let ended = node.container("debugger");
    assert!(matches!(&ended.state, ContainerState::Terminated(ended) if ended.exit_code == 3), "{ended:?}");
    assert_eq!(node.fake.count(Verb::Create), 2);
    assert!(node.debug("debugger", None).await.unwrap_err().to_string().contains("Duplicate"));
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_added_once_it_is_on_record() {
    let mut node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    node.fake.hang(Verb::Save);
    let (pods, asked) = (node.pods.clone(), ephemeral("debugger", None));
    let adding = tokio::spawn(async move { pods.add_ephemeral(&uid("a"), asked).await });
    sleep(Duration::from_secs(10)).await;
    assert!(!adding.is_finished() && node.fake.count(Verb::Create) == 1, "before it is on record");
    node.fake.unhang(Verb::Save);
    sleep(SETTLE).await;
    assert_eq!(adding.await.unwrap(), Ok(()));
    node.restart_agent().await;
    assert!(matches!(node.container("debugger").state, ContainerState::Running(_)));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_takes_none() {
    let node = Node::new();
    assert_eq!(node.debug("debugger", None).await, Err(NotAdded::Gone));
    node.run(Never, &[], &["web"]).await;
    node.fake.with(|state| state.obey = None);
    node.pods.terminate(&uid("a"), Some(Duration::from_secs(60)));
    sleep(SETTLE).await;
    assert!(matches!(node.debug("debugger", None).await, Err(NotAdded::NotRunning(_))));
    // Asked for as it goes.
    let (pods, asked) = (node.pods.clone(), ephemeral("debugger", None));
    node.gone(Duration::from_secs(100)).await;
    assert_eq!(pods.add_ephemeral(&uid("a"), asked).await, Err(NotAdded::Gone));
}

#[tokio::test(start_paused = true)]
async fn what_it_waits_for_is_told() {
    let node = Node::new();
    node.fake.hang(Verb::Start);
    node.run(POLICY, &[], &["web"]).await;
    node.debug("debugger", Some("web")).await.unwrap();
    let ContainerState::Waiting(waiting) = node.container("debugger").state else { panic!("it waits") };
    assert_eq!(waiting.message.as_deref(), Some("waiting for container web, the target, to run"));
    node.fake.heal();
    sleep(SETTLE).await;
    assert!(matches!(node.container("debugger").state, ContainerState::Running(_)));
    // The target's end takes it along, in a real pid namespace; it does not come again with the target.
    node.exit("debugger", 137);
    node.exit("web", 1);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(node.container("web").restart_count, 1);
    assert!(matches!(node.container("debugger").state, ContainerState::Terminated(_)));
    node.well_behaved();
}
