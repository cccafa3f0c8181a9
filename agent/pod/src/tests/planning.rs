//! The plan, state by state.

use std::collections::BTreeMap;

use coracle_model::{ContainerId, Pod, PodPhase, RestartPolicy};

use super::values::{at, created, exited, image, pod, running};
use crate::action::{Action, Step};
use crate::age::Age;
use crate::plan::{Facts, Plan, Prepared, Released, Stops, release, sync};
use crate::ports::{Observed, ObservedContainer, SandboxState};
use crate::record::Progress;
use crate::scene::Scene;

use RestartPolicy::{Always, Never, OnFailure};

fn observed(sandbox: SandboxState, containers: Vec<ObservedContainer>) -> Observed {
    Observed { sandbox, containers, ..Observed::default() }
}

pub(crate) fn ready(containers: Vec<ObservedContainer>) -> Observed {
    observed(SandboxState::Ready, containers)
}

/// The plan at a time when every back-off of the tests is over, all being prepared for first runs.
fn planned(policy: RestartPolicy, init: &[&str], apps: &[&str], observed: &Observed) -> Plan {
    let images = (0..init.len() + apps.len()).map(|index| (index, (0, image()))).collect();
    planned_with(policy, init, apps, observed, &Prepared { volumes: true, images }, &[])
}

fn planned_with(
    policy: RestartPolicy,
    init: &[&str],
    apps: &[&str],
    observed: &Observed,
    prepared: &Prepared,
    held: &[Step],
) -> Plan {
    sync(&Facts {
        scene: Scene {
            pod: &pod("a", policy, init, apps),
            observed,
            progress: &BTreeMap::new(),
            round: &BTreeMap::new(),
            restarting: false,
        },
        prepared,
        streak_base: &BTreeMap::new(),
        stops: &BTreeMap::new(),
        held: &|step| held.contains(&step),
        age: &|container| Age::of(container, at(1000)),
    })
}

/// The plan of a pod for which all is prepared, and nothing known but what is observed.
pub(crate) fn plan_of(pod: &Pod, observed: &Observed) -> Plan {
    plan_with(pod, observed, &BTreeMap::new(), &BTreeMap::new())
}

/// As [`plan_of`], with how far the containers are, and how far their ends.
pub(crate) fn plan_with(
    pod: &Pod,
    observed: &Observed,
    progress: &BTreeMap<ContainerId, Progress>,
    stops: &Stops,
) -> Plan {
    let round = BTreeMap::new();
    let scene = Scene { pod, observed, progress, round: &round, restarting: false };
    let attempts = scene.views().into_iter().map(|view| (view.next_attempt, image()));
    let prepared = Prepared { volumes: true, images: attempts.enumerate().collect() };
    let streak_base = BTreeMap::new();
    let facts = Facts {
        scene,
        prepared: &prepared,
        streak_base: &streak_base,
        stops,
        held: &|_| false,
        age: &|container| Age::of(container, at(1000)),
    };
    sync(&facts)
}

#[test]
fn everything_a_new_pod_needs_is_asked_for_at_once() {
    let plan =
        planned_with(Always, &["init"], &["web", "log"], &Observed::default(), &Prepared::default(), &[]);
    let images = (0..3).map(|index| Action::EnsureImage(index, 0));
    let expected: Vec<_> = images.chain([Action::EnsureSandbox, Action::EnsureVolumes]).collect();
    assert_eq!(plan.actions, expected);
    assert!(plan.starting);
}

#[test]
fn init_containers_run_one_by_one_and_apps_side_by_side() {
    let init = ["one", "two"];
    let apps = ["web", "log"];
    for (containers, expected) in [
        (vec![], vec![Action::Create(0, 0, image())]),
        (vec![created("one", 0)], vec![Action::Start(0, created("one", 0).id)]),
        (vec![running("one", 0)], vec![]),
        (vec![exited("one", 0, 0)], vec![Action::Create(1, 0, image())]),
        (
            vec![exited("one", 0, 0), exited("two", 0, 0)],
            vec![Action::Create(2, 0, image()), Action::Create(3, 0, image())],
        ),
        // Started in the order of the specification, once the one before runs.
        (
            vec![exited("one", 0, 0), exited("two", 0, 0), created("web", 0), created("log", 0)],
            vec![Action::Start(2, created("web", 0).id)],
        ),
        (
            vec![exited("one", 0, 0), exited("two", 0, 0), running("web", 0), created("log", 0)],
            vec![Action::Start(3, created("log", 0).id)],
        ),
        (vec![exited("one", 0, 0), exited("two", 0, 0), running("web", 0), running("log", 0)], vec![]),
    ] {
        let plan = planned(Always, &init, &apps, &ready(containers.clone()));
        assert_eq!(plan.actions, expected, "{containers:?}");
        assert_eq!(plan.outcome, None);
    }
}

#[test]
fn what_becomes_of_an_exit() {
    for (policy, code, outcome) in [
        (Always, 0, None),
        (Always, 1, None),
        (OnFailure, 0, Some(PodPhase::Succeeded)),
        (OnFailure, 1, None),
        (Never, 0, Some(PodPhase::Succeeded)),
        (Never, 1, Some(PodPhase::Failed)),
    ] {
        let plan = planned(policy, &[], &["web"], &ready(vec![exited("web", 0, code)]));
        assert_eq!(plan.outcome, outcome, "{policy:?} {code}");
        let again = vec![Action::EnsureImage(0, 1)];
        assert_eq!(plan.actions, if outcome.is_none() { again } else { vec![] }, "{policy:?} {code}");
        // A container that still runs keeps the pod alive.
        let both = ready(vec![exited("web", 0, code), running("log", 0)]);
        assert_eq!(planned(policy, &[], &["web", "log"], &both).outcome, None, "{policy:?} {code}");
    }
}

#[test]
fn what_becomes_of_an_init_containers_exit() {
    for (policy, code, outcome, actions) in [
        (Always, 0, None, vec![Action::Create(1, 0, image())]),
        (OnFailure, 0, None, vec![Action::Create(1, 0, image())]),
        (Never, 0, None, vec![Action::Create(1, 0, image())]),
        (Always, 1, None, vec![Action::EnsureImage(0, 1)]),
        (OnFailure, 1, None, vec![Action::EnsureImage(0, 1)]),
        (Never, 1, Some(PodPhase::Failed), vec![]),
    ] {
        let plan = planned(policy, &["init"], &["web"], &ready(vec![exited("init", 0, code)]));
        assert_eq!((plan.outcome, plan.actions), (outcome, actions), "{policy:?} {code}");
    }
}

#[test]
fn what_becomes_of_a_dead_sandbox() {
    let dead = |containers| observed(SandboxState::Dead, containers);
    let plan = planned(Always, &["init"], &["web"], &dead(vec![exited("init", 0, 0), exited("web", 0, 137)]));
    assert_eq!(plan.actions, [Action::EnsureImage(0, 1), Action::EnsureSandbox], "init runs again");

    let plan = planned(Always, &[], &["web"], &dead(vec![running("web", 0)]));
    assert!(matches!(plan.actions[..], [Action::Stop(..)]), "what still lives of it ends first: {plan:?}");

    for (policy, codes, outcome) in [
        (Never, [0, 137], Some(PodPhase::Failed)),
        (Never, [0, 0], Some(PodPhase::Succeeded)),
        (OnFailure, [0, 0], Some(PodPhase::Succeeded)),
        (OnFailure, [0, 137], None),
        (Always, [0, 0], None),
    ] {
        let all = vec![exited("web", 0, codes[0]), exited("log", 0, codes[1])];
        assert_eq!(
            planned(policy, &[], &["web", "log"], &dead(all)).outcome,
            outcome,
            "{policy:?} {codes:?}"
        );
    }
}

#[test]
fn an_init_container_of_an_older_sandbox_does_not_count() {
    let mut observed = ready(vec![exited("init", 0, 0), exited("web", 0, 137)]);
    observed.sandbox_attempt = 1;
    let plan = planned(OnFailure, &["init"], &["web"], &observed);
    assert_eq!(plan.actions, [Action::EnsureImage(0, 1)]);
    // Once an app container was made in this sandbox, a lost record of an init container is no reason.
    let mut web = running("web", 1);
    web.sandbox_attempt = Some(1);
    observed.containers = vec![web];
    assert!(!planned(OnFailure, &["init"], &["web"], &observed).actions.contains(&Action::Create(
        0,
        0,
        image()
    )));
}

#[test]
fn a_crash_loop_waits_and_wakes() {
    let dead = exited("web", 3, 1).ran(at(990), at(991));
    let plan = planned(Always, &[], &["web", "log"], &ready(vec![dead, running("log", 0)]));
    assert_eq!(plan.actions, []);
    assert_eq!(plan.timer.0.map(|wake| wake.as_secs()), Some(31));
    assert_eq!(plan.back_off[&0].delay.as_secs(), 40);
    assert!(!plan.starting, "nothing is kept ready meanwhile");
}

#[test]
fn the_last_dead_container_is_kept_and_older_ones_go() {
    let all = vec![exited("web", 0, 1), exited("web", 1, 1), running("web", 2)];
    let plan = planned(Always, &[], &["web"], &ready(all));
    assert_eq!(plan.actions, [Action::Remove(exited("web", 0, 1).id)]);
}

#[test]
fn of_two_live_containers_one_goes() {
    let all = vec![running("web", 0), running("web", 1)];
    let plan = planned(Always, &[], &["web"], &ready(all));
    assert!(matches!(plan.actions[..], [Action::Stop(id, ..)] if id == running("web", 0).id), "{plan:?}");
}

#[test]
fn what_failed_is_not_tried_before_its_time_and_holds_up_no_other() {
    let prepared = Prepared { volumes: true, images: (0..2).map(|index| (index, (0, image()))).collect() };
    let all = ready(vec![created("log", 0)]);
    let plan = |held: &[Step]| planned_with(Always, &[], &["web", "log"], &all, &prepared, held).actions;
    assert_eq!(plan(&[]), [Action::Create(0, 0, image())], "log starts after web");
    assert_eq!(plan(&[Step::Create(0)]), [Action::Start(1, created("log", 0).id)]);
}

#[test]
fn release_goes_from_the_sandbox_to_the_record() {
    let all = |sandbox, volumes, logs, record| Released { sandbox, devices: true, volumes, logs, record };
    let with_devices = |rest| Released { devices: false, ..all(true, rest, rest, false) };
    for (released, recorded, deleted, begins_again, expected) in [
        (all(false, false, false, false), false, false, false, vec![]),
        (all(false, false, false, false), true, false, false, vec![Action::RemoveSandbox]),
        (all(false, false, false, false), false, true, false, vec![Action::RemoveSandbox]),
        (all(false, false, false, false), true, false, true, vec![Action::RemoveSandbox]),
        (all(true, false, false, false), true, false, false, vec![Action::ReleaseVolumes]),
        (all(true, false, false, false), true, false, true, vec![]),
        (
            all(true, false, false, false),
            true,
            true,
            false,
            vec![Action::ReleaseVolumes, Action::ReleaseLogs],
        ),
        (all(true, true, false, false), true, false, false, vec![]),
        (all(true, false, true, false), true, true, false, vec![Action::ReleaseVolumes]),
        (all(true, true, true, false), true, true, false, vec![Action::ForgetRecord]),
        (all(true, true, true, true), true, true, false, vec![]),
        (Released::default(), false, true, false, vec![Action::RemoveSandbox]),
        (with_devices(false), true, false, false, vec![Action::ReleaseDevices, Action::ReleaseVolumes]),
        // They are given again, others perhaps, where it begins again.
        (with_devices(false), true, false, true, vec![Action::ReleaseDevices]),
        (with_devices(true), true, true, false, vec![Action::ReleaseDevices]),
    ] {
        let text = format!("{released:?} {recorded} {deleted} {begins_again}");
        assert_eq!(release(released, recorded, deleted, begins_again), expected, "{text}");
    }
}
