//! The status, state by state.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_model::{
    ConditionStatus, ContainerState, PodConditionType, PodPhase, PodStatus, RestartPolicy, Waiting,
};

use super::values::{at, created, exited, pod, running};
use crate::backoff::CrashLoop;
use crate::ports::{Failure, Observed, ObservedContainer, SandboxState};
use crate::record::Verdict;
use crate::scene::Scene;
use crate::status::{Course, Notes, status};

use RestartPolicy::{Always, Never, OnFailure};

struct Seen<'a> {
    policy: RestartPolicy,
    init: &'a [&'a str],
    containers: Vec<ObservedContainer>,
    failures: BTreeMap<usize, Failure>,
    back_off: BTreeMap<usize, CrashLoop>,
    course: Course,
    verdict: Option<Verdict>,
    gates: &'a [&'a str],
    previous: Option<PodStatus>,
    now: i64,
}

fn seen(policy: RestartPolicy, containers: Vec<ObservedContainer>) -> Seen<'static> {
    Seen {
        policy,
        init: &[],
        containers,
        failures: BTreeMap::new(),
        back_off: BTreeMap::new(),
        course: Course::Running,
        verdict: None,
        gates: &[],
        previous: None,
        now: 100,
    }
}

impl Seen<'_> {
    /// The status of a pod with one app container, `web`.
    fn status(self) -> PodStatus {
        let observed =
            Observed { sandbox: SandboxState::Ready, containers: self.containers, ..Observed::default() };
        let notes = Notes {
            start_time: at(50),
            back_off: &self.back_off,
            failures: &self.failures,
            pod_failure: None,
            awaited_devices: None,
            devices: None,
            health: &|_, _| coracle_model::DeviceHealth::Unknown,
            course: self.course,
            host_ips: &[],
            verdict: self.verdict.as_ref(),
            previous: self.previous.as_ref(),
            now: at(self.now),
        };
        let mut pod = pod("a", self.policy, self.init, &["web"]);
        pod.spec.readiness_gates = self.gates.iter().copied().map(str::to_owned).collect();
        status(
            &Scene {
                pod: &pod,
                observed: &observed,
                progress: &BTreeMap::new(),
                round: &BTreeMap::new(),
                restarting: false,
            },
            &notes,
        )
    }
}

fn condition(status: &PodStatus, kind: PodConditionType) -> (bool, Option<&str>, Option<&str>) {
    let condition = status.conditions.iter().find(|condition| condition.kind == kind).unwrap();
    let holds = condition.status == ConditionStatus::True;
    (holds, condition.reason.as_deref(), condition.message.as_deref())
}

fn waiting(reason: &str, message: Option<&str>) -> ContainerState {
    ContainerState::Waiting(Waiting { reason: reason.to_owned(), message: message.map(str::to_owned) })
}

#[test]
fn phases() {
    let looping =
        || BTreeMap::from([(0, CrashLoop { delay: Duration::from_secs(10), remaining: Duration::ZERO })]);
    for (policy, containers, course, back_off, phase) in [
        (Always, vec![], Course::Running, BTreeMap::new(), PodPhase::Pending),
        (Always, vec![created("web", 0)], Course::Running, BTreeMap::new(), PodPhase::Pending),
        (Always, vec![running("web", 0)], Course::Running, BTreeMap::new(), PodPhase::Running),
        (Always, vec![exited("web", 0, 1)], Course::Running, looping(), PodPhase::Running),
        (Always, vec![exited("web", 0, 0)], Course::Running, BTreeMap::new(), PodPhase::Running),
        (OnFailure, vec![exited("web", 0, 1)], Course::Running, looping(), PodPhase::Running),
        (OnFailure, vec![exited("web", 0, 0)], Course::Running, BTreeMap::new(), PodPhase::Succeeded),
        (Never, vec![exited("web", 0, 1)], Course::Running, BTreeMap::new(), PodPhase::Failed),
        (Always, vec![running("web", 0)], Course::Stopping, BTreeMap::new(), PodPhase::Running),
        (Always, vec![exited("web", 0, 0)], Course::Ended, BTreeMap::new(), PodPhase::Succeeded),
        (Always, vec![exited("web", 0, 143)], Course::Ended, BTreeMap::new(), PodPhase::Failed),
        (Always, vec![], Course::Ended, BTreeMap::new(), PodPhase::Failed),
    ] {
        let text = format!("{policy:?} {containers:?} {course:?}");
        let status = Seen { course, back_off, ..seen(policy, containers) }.status();
        assert_eq!(status.phase, phase, "{text}");
    }
}

#[test]
fn phases_with_an_init_container() {
    for (policy, containers, phase) in [
        (Always, vec![running("init", 0)], PodPhase::Pending),
        (Always, vec![exited("init", 0, 1)], PodPhase::Pending),
        (Never, vec![exited("init", 0, 1)], PodPhase::Failed),
        (Never, vec![exited("init", 0, 0)], PodPhase::Pending),
        (Never, vec![exited("init", 0, 0), running("web", 0)], PodPhase::Running),
        // As in the kubelet, a pod whose init containers run again in a new sandbox is pending once more.
        (Always, vec![running("init", 1), exited("web", 0, 137)], PodPhase::Pending),
    ] {
        let text = format!("{policy:?} {containers:?}");
        let status = Seen { init: &["init"], ..seen(policy, containers) }.status();
        assert_eq!(status.phase, phase, "{text}");
    }
}

#[test]
fn a_container_waits_in_the_kubelets_words() {
    let status = seen(Always, vec![]).status();
    assert_eq!(status.container_statuses[0].state, waiting("ContainerCreating", None));

    let status = Seen { init: &["init"], ..seen(Always, vec![]) }.status();
    assert_eq!(status.container_statuses[0].state, waiting("PodInitializing", None));
    assert_eq!(status.init_container_statuses[0].state, waiting("PodInitializing", None));

    let back_off = CrashLoop { delay: Duration::from_secs(40), remaining: Duration::from_secs(3) };
    let looping =
        Seen { back_off: BTreeMap::from([(0, back_off)]), ..seen(Always, vec![exited("web", 3, 7)]) }
            .status();
    let web = &looping.container_statuses[0];
    let message = "back-off 40s restarting failed container=web pod=pod_default(a)";
    assert_eq!(web.state, waiting("CrashLoopBackOff", Some(message)));
    assert_eq!(web.last_state.as_ref().map(|last| last.exit_code), Some(7));
    assert_eq!((web.restart_count, web.ready, web.started), (3, false, false));

    for reason in ["ErrImageNeverPull", "CreateContainerError", "CreateContainerConfigError"] {
        let failures = BTreeMap::from([(0, Failure::new(reason, "because"))]);
        let status = Seen { failures, ..seen(Always, vec![]) }.status();
        assert_eq!(status.container_statuses[0].state, waiting(reason, Some("because")));
    }
}

#[test]
fn a_program_that_could_not_be_executed_is_a_run_container_error() {
    let mut never_ran = exited("web", 0, 128);
    if let crate::ports::ObservedState::Exited { started_at, message, .. } = &mut never_ran.state {
        (*started_at, *message) = (None, Some("exec: \"sleeep\": not found".to_owned()));
    }
    let status = seen(Always, vec![never_ran.clone()]).status();
    let expected = waiting("RunContainerError", Some("exec: \"sleeep\": not found"));
    assert_eq!(status.container_statuses[0].state, expected);
    let status = seen(Never, vec![never_ran]).status();
    assert!(matches!(status.container_statuses[0].state, ContainerState::Terminated(_)));
}

#[test]
fn conditions_say_what_is_missing() {
    let status = Seen { init: &["init"], ..seen(Always, vec![running("init", 0)]) }.status();
    assert_eq!(condition(&status, PodConditionType::PodScheduled), (true, None, None));
    assert_eq!(condition(&status, PodConditionType::PodReadyToStartContainers), (true, None, None));
    assert_eq!(
        condition(&status, PodConditionType::Initialized),
        (false, Some("ContainersNotInitialized"), Some("containers with incomplete status: [init]"))
    );
    let unready = (false, Some("ContainersNotReady"), Some("containers with unready status: [web]"));
    assert_eq!(condition(&status, PodConditionType::Ready), unready);
    assert_eq!(condition(&status, PodConditionType::ContainersReady), unready);

    let running = Seen {
        init: &["init"],
        now: 200,
        previous: Some(status),
        ..seen(Always, vec![exited("init", 0, 0), running("web", 0)])
    };
    let status = running.status();
    for kind in [PodConditionType::Initialized, PodConditionType::Ready, PodConditionType::ContainersReady] {
        assert_eq!(condition(&status, kind), (true, None, None), "{kind:?}");
    }
    let times: Vec<_> =
        status.conditions.iter().map(|condition| condition.last_transition_time.unwrap()).collect();
    assert_eq!(times, [at(100), at(200), at(200), at(200), at(100)], "what did not change keeps its time");

    let status = seen(OnFailure, vec![exited("web", 0, 0)]).status();
    assert_eq!(condition(&status, PodConditionType::Ready), (false, Some("PodCompleted"), None));
    assert_eq!(condition(&status, PodConditionType::Initialized), (true, Some("PodCompleted"), None));
    let status = seen(Never, vec![exited("web", 0, 1)]).status();
    assert_eq!(condition(&status, PodConditionType::Ready), (false, Some("PodFailed"), None));
}

#[test]
fn a_pod_is_ready_once_its_gates_are() {
    let ready = |gates, containers| {
        let status = Seen { gates, ..seen(Always, containers) }.status();
        assert_eq!(
            condition(&status, PodConditionType::ContainersReady).0,
            !status.container_statuses.iter().any(|it| !it.ready)
        );
        let (holds, reason, message) = condition(&status, PodConditionType::Ready);
        (holds, reason.map(str::to_owned), message.map(str::to_owned))
    };
    let unready =
        |message: &str| (false, Some("ReadinessGatesNotReady".to_owned()), Some(message.to_owned()));
    assert_eq!(
        ready(&["example.com/a", "example.com/b"], vec![running("web", 0)]),
        unready(
            "corresponding condition of pod readiness gate \"example.com/a\" does not exist., \
             corresponding condition of pod readiness gate \"example.com/b\" does not exist."
        )
    );
    assert_eq!(ready(&["Initialized"], vec![running("web", 0)]), (true, None, None));
    // Its containers come first.
    let (_, reason, _) = ready(&["example.com/a"], vec![]);
    assert_eq!(reason.as_deref(), Some("ContainersNotReady"));
}

#[test]
fn a_pod_the_node_ends_is_not_ready_and_fails_with_its_last_container() {
    for disruption in [false, true] {
        let verdict = Some(Verdict {
            reason: "Why".to_owned(),
            message: "because".to_owned(),
            disruption,
            refused: false,
        });
        let seen = |containers, course| {
            Seen { verdict: verdict.clone(), course, ..seen(Always, containers) }.status()
        };
        let stopping = seen(vec![running("web", 0)], Course::Stopping);
        assert_eq!((stopping.phase, stopping.reason.as_deref()), (PodPhase::Running, None));
        for kind in [PodConditionType::Ready, PodConditionType::ContainersReady] {
            assert_eq!(condition(&stopping, kind), (false, Some("PodFailed"), None));
        }
        let ended = seen(vec![exited("web", 0, 0)], Course::Ended);
        assert_eq!((ended.phase, ended.reason.as_deref()), (PodPhase::Failed, Some("Why")));
        assert_eq!(ended.message.as_deref(), Some("because"));
        let target = ended.conditions.iter().any(|it| it.kind == PodConditionType::DisruptionTarget);
        assert_eq!(target, disruption);
    }
}

#[test]
fn a_container_that_is_lost_is_not_forgotten() {
    let before = seen(Always, vec![exited("web", 0, 3), running("web", 1)]).status();
    let status = Seen { previous: Some(before), course: Course::Ended, ..seen(Always, vec![]) }.status();
    let web = &status.container_statuses[0];
    let ContainerState::Terminated(ended) = &web.state else { panic!("{web:?}") };
    assert_eq!((ended.reason.as_str(), ended.exit_code), ("ContainerStatusUnknown", 137));
    assert_eq!(web.restart_count, 1);
}
