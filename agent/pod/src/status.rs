//! What a pod is seen to be, in the kubelet's words: a function of the pod and of what is there.

use std::collections::BTreeMap;

use coracle_model::{
    Container, ContainerState, ContainerStatus, Pod, PodCondition, PodConditionType, PodPhase, PodStatus,
    RestartPolicy, Running, Terminated, Waiting, qos_class,
};
use jiff::Timestamp;

use crate::action::Index;
use crate::backoff::{CrashLoop, go_duration};
use crate::ports::{Failure, Observed, ObservedContainer, ObservedState, SandboxState};
use crate::view::View;

/// Exit code of a container whose end nobody saw.
const UNKNOWN_EXIT_CODE: i32 = 137;

/// What the status rests on beside the pod and what is observed.
pub(crate) struct Notes<'a> {
    /// When the node took the pod up.
    pub(crate) start_time: Timestamp,
    /// Containers that wait before they are started again.
    pub(crate) back_off: &'a BTreeMap<Index, CrashLoop>,
    /// Why a container cannot be started, by container.
    pub(crate) failures: &'a BTreeMap<Index, Failure>,
    /// Why nothing of the pod can be started.
    pub(crate) pod_failure: Option<&'a Failure>,
    /// Whether containers may still be started.
    pub(crate) course: Course,
    /// The status before this one.
    pub(crate) previous: Option<&'a PodStatus>,
    pub(crate) now: Timestamp,
}

/// Where a pod is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Containers are started.
    Running,
    /// None is any more, and some may still run.
    Stopping,
    /// None runs any more, and this is the last word.
    Ended,
}

/// The pod's status.
pub(crate) fn status(pod: &Pod, observed: &Observed, notes: &Notes<'_>) -> PodStatus {
    let previous = |name: &str| {
        let status = notes.previous?;
        let mut all = status.init_container_statuses.iter().chain(&status.container_statuses);
        all.find(|container| container.name == name)
    };
    let inits = pod.spec.init_containers.len();
    let mut statuses: Vec<ContainerStatus> = pod
        .all_containers()
        .enumerate()
        .map(|(index, container)| {
            let view = View::of(observed, &container.name);
            container_status(pod, container, index, &view, previous(&container.name), notes)
        })
        .collect();
    if notes.course == Course::Ended {
        close(&mut statuses, inits);
    }
    let container_statuses = statuses.split_off(inits);
    let init_container_statuses = statuses;

    let mut phase = phase(pod, &init_container_statuses, &container_statuses, notes.course);
    if notes.course == Course::Ended && !phase.is_terminal() {
        phase = PodPhase::Failed;
    }
    let mut status = PodStatus {
        phase,
        conditions: Vec::new(),
        reason: None,
        message: None,
        start_time: Some(notes.start_time),
        init_container_statuses,
        container_statuses,
        qos_class: qos_class(&pod.spec),
    };
    status.conditions = conditions(pod, observed, &status, notes);
    status
}

fn container_status(
    pod: &Pod,
    container: &Container,
    index: Index,
    view: &View<'_>,
    previous: Option<&ContainerStatus>,
    notes: &Notes<'_>,
) -> ContainerStatus {
    let is_init = index < pod.spec.init_containers.len();
    let latest = view.latest();
    let mut last_state = view.live.and(view.dead).and_then(terminated);
    let waiting = || {
        let (reason, message) = match (notes.failures.get(&index), notes.pod_failure) {
            (Some(failure), _) => (failure.reason.clone(), Some(failure.message.clone())),
            (None, failure) if pod.spec.init_containers.is_empty() => {
                ("ContainerCreating".to_owned(), failure.map(ToString::to_string))
            }
            (None, failure) => ("PodInitializing".to_owned(), failure.map(ToString::to_string)),
        };
        ContainerState::Waiting(Waiting { reason, message })
    };
    let state = match latest.map(|latest| &latest.state) {
        Some(ObservedState::Running { started_at }) => {
            ContainerState::Running(Running { started_at: *started_at })
        }
        Some(ObservedState::Created) => waiting(),
        Some(ObservedState::Exited { .. }) => {
            let ended = latest.and_then(terminated);
            match restart(pod, container, index, latest, notes) {
                Some(reason) => {
                    last_state = ended;
                    ContainerState::Waiting(reason)
                }
                // What ran before is forgotten by the runtime, but still true.
                None => {
                    last_state = previous
                        .filter(|before| before.container_id == latest.map(|latest| latest.id))
                        .and_then(|before| before.last_state.clone());
                    ended.map_or_else(waiting, ContainerState::Terminated)
                }
            }
        }
        None => match previous {
            // It was there: its end was seen, or is all that can be said of it.
            Some(before) if before.container_id.is_some() => return lost(before),
            _ => waiting(),
        },
    };
    ContainerStatus {
        name: container.name.to_string(),
        ready: match (&state, is_init) {
            (ContainerState::Running(_), false) => true,
            (ContainerState::Terminated(ended), true) => ended.exit_code == 0,
            _ => false,
        },
        started: matches!(state, ContainerState::Running(_)),
        state,
        last_state,
        restart_count: latest.map_or(0, |latest| latest.attempt),
        image: container.image.clone(),
        image_id: latest.map(|latest| latest.image.id.clone()).unwrap_or_default(),
        container_id: latest.map(|latest| latest.id),
    }
}

/// Why a container that ended waits to be started again; `None` when its end is its state.
fn restart(
    pod: &Pod,
    container: &Container,
    index: Index,
    dead: Option<&ObservedContainer>,
    notes: &Notes<'_>,
) -> Option<Waiting> {
    if notes.course != Course::Running {
        return None;
    }
    if let Some(back_off) = notes.back_off.get(&index) {
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(back_off.delay),
            container.name,
            pod.key.name,
            pod.key.namespace,
            pod.uid
        );
        return Some(Waiting { reason: "CrashLoopBackOff".to_owned(), message: Some(message) });
    }
    if let Some(failure) = notes.failures.get(&index) {
        return Some(Waiting { reason: failure.reason.clone(), message: Some(failure.message.clone()) });
    }
    match &dead?.state {
        // Its program was never executed, and it is about to be tried again.
        ObservedState::Exited { exit_code, started_at: None, message, .. }
            if pod.spec.restart_policy.restarts(*exit_code) && *exit_code != 0 =>
        {
            Some(Waiting { reason: "RunContainerError".to_owned(), message: message.clone() })
        }
        _ => None,
    }
}

fn terminated(container: &ObservedContainer) -> Option<Terminated> {
    let ObservedState::Exited { exit_code, signal, reason, message, started_at, finished_at } =
        &container.state
    else {
        return None;
    };
    Some(Terminated {
        exit_code: *exit_code,
        signal: *signal,
        reason: reason.clone(),
        message: message.clone(),
        started_at: *started_at,
        finished_at: Some(*finished_at),
        container_id: Some(container.id),
    })
}

/// The status of a container the runtime no longer knows.
fn lost(before: &ContainerStatus) -> ContainerStatus {
    let mut status = before.clone();
    if let ContainerState::Running(running) = &before.state {
        status.state = ContainerState::Terminated(Terminated {
            started_at: Some(running.started_at),
            container_id: before.container_id,
            ..unknown("The container could not be located when the pod was terminated")
        });
        status.ready = false;
        status.started = false;
    }
    status
}

fn unknown(message: &str) -> Terminated {
    Terminated {
        exit_code: UNKNOWN_EXIT_CODE,
        signal: None,
        reason: "ContainerStatusUnknown".to_owned(),
        message: Some(message.to_owned()),
        started_at: None,
        finished_at: None,
        container_id: None,
    }
}

/// The kubelet's last word on a pod: containers of an initialized pod that never ran count as failed.
fn close(statuses: &mut [ContainerStatus], inits: usize) {
    let initialized = inits == 0
        || statuses[inits..].iter().any(|status| status.container_id.is_some())
        || matches!(&statuses[inits - 1].state, ContainerState::Terminated(last) if last.exit_code == 0);
    if !initialized {
        return;
    }
    for status in &mut statuses[inits..] {
        if !matches!(status.state, ContainerState::Terminated(_)) {
            status.state = ContainerState::Terminated(unknown(
                "The container could not be located when the pod was terminated",
            ));
            status.ready = false;
            status.started = false;
        }
    }
}

/// `status.phase`, by the kubelet's rules.
fn phase(pod: &Pod, init: &[ContainerStatus], apps: &[ContainerStatus], course: Course) -> PodPhase {
    let (mut init_pending, mut init_failed) = (0, 0);
    for status in init {
        match (&status.state, &status.last_state) {
            (ContainerState::Terminated(ended), _) => init_failed += usize::from(ended.exit_code != 0),
            (ContainerState::Waiting(_), Some(ended)) => init_failed += usize::from(ended.exit_code != 0),
            (ContainerState::Running(_) | ContainerState::Waiting(_), _) => init_pending += 1,
        }
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in apps {
        match (&status.state, &status.last_state) {
            (ContainerState::Running(_), _) => running += 1,
            (ContainerState::Terminated(ended), _) => {
                stopped += 1;
                succeeded += usize::from(ended.exit_code == 0);
            }
            (ContainerState::Waiting(_), Some(_)) => stopped += 1,
            (ContainerState::Waiting(_), None) => waiting += 1,
        }
    }
    let has_run = apps.iter().any(|status| status.container_id.is_some());
    let policy = pod.spec.restart_policy;
    if init_failed > 0 && policy == RestartPolicy::Never {
        return PodPhase::Failed;
    }
    if (init_pending > 0 && !has_run) || waiting > 0 {
        return PodPhase::Pending;
    }
    if running > 0 {
        return PodPhase::Running;
    }
    if stopped == 0 {
        return PodPhase::Pending;
    }
    match (course, policy) {
        (Course::Running, RestartPolicy::Always) => PodPhase::Running,
        _ if stopped == succeeded => PodPhase::Succeeded,
        (Course::Ended, _) | (_, RestartPolicy::Never) => PodPhase::Failed,
        _ => PodPhase::Running,
    }
}

/// The conditions, in the kubelet's order, each with the time its status last changed.
fn conditions(pod: &Pod, observed: &Observed, status: &PodStatus, notes: &Notes<'_>) -> Vec<PodCondition> {
    let sandbox = Verdict::from(observed.sandbox == SandboxState::Ready && notes.course != Course::Ended);
    let containers_ready = containers_ready(status);
    let verdicts = [
        (PodConditionType::PodReadyToStartContainers, sandbox),
        (PodConditionType::Initialized, initialized(pod, status)),
        (PodConditionType::Ready, containers_ready.clone()),
        (PodConditionType::ContainersReady, containers_ready),
        (PodConditionType::PodScheduled, Verdict::from(true)),
    ];
    let condition = |(kind, verdict): (PodConditionType, Verdict)| {
        let before = notes
            .previous
            .and_then(|previous| previous.conditions.iter().find(|condition| condition.kind == kind));
        let changed = before.is_none_or(|before| before.status != verdict.holds.into());
        PodCondition {
            kind,
            status: verdict.holds.into(),
            reason: verdict.reason.map(str::to_owned),
            message: verdict.message,
            last_transition_time: match before {
                Some(before) if !changed => before.last_transition_time,
                _ => Some(notes.now),
            },
        }
    };
    verdicts.map(condition).into()
}

/// A condition without its times.
#[derive(Clone)]
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        Self { holds, reason: None, message: None }
    }
}

fn initialized(pod: &Pod, status: &PodStatus) -> Verdict {
    if status.phase == PodPhase::Succeeded {
        return Verdict { holds: true, reason: Some("PodCompleted"), message: None };
    }
    let has_run = status.container_statuses.iter().any(|app| app.container_id.is_some());
    if pod.spec.init_containers.is_empty() || has_run {
        return Verdict::from(true);
    }
    match names(status.init_container_statuses.iter().filter(|init| !init.ready)) {
        None => Verdict::from(true),
        Some(names) => Verdict {
            holds: false,
            reason: Some("ContainersNotInitialized"),
            message: Some(format!("containers with incomplete status: {names}")),
        },
    }
}

fn containers_ready(status: &PodStatus) -> Verdict {
    match status.phase {
        PodPhase::Succeeded => Verdict { holds: false, reason: Some("PodCompleted"), message: None },
        PodPhase::Failed => Verdict { holds: false, reason: Some("PodFailed"), message: None },
        _ => match names(status.container_statuses.iter().filter(|container| !container.ready)) {
            None => Verdict::from(true),
            Some(names) => Verdict {
                holds: false,
                reason: Some("ContainersNotReady"),
                message: Some(format!("containers with unready status: {names}")),
            },
        },
    }
}

/// Names as Go prints a slice of them: `[a b]`; `None` when there is none.
fn names<'a>(containers: impl Iterator<Item = &'a ContainerStatus>) -> Option<String> {
    let names: Vec<&str> = containers.map(|container| container.name.as_str()).collect();
    if names.is_empty() { None } else { Some(format!("[{}]", names.join(" "))) }
}
