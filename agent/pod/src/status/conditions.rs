//! `status.conditions`, by the kubelet's rules.

use coracle_model::{
    ConditionStatus, ContainerState, ContainerStatus, PodCondition, PodConditionType, PodPhase, PodStatus,
    RestartAction, RestartRule,
};

use super::{Course, Notes};
use crate::ports::SandboxState;
use crate::scene::{Role, Scene};
use crate::worker::devices::UNSCHEDULABLE;

/// The conditions, in the kubelet's order, each with the time its status last changed.
pub(super) fn conditions(scene: &Scene<'_>, status: &PodStatus, notes: &Notes<'_>) -> Vec<PodCondition> {
    // A pod the node ends counts as failed at once, also while its phase waits for its last container.
    let phase = if notes.verdict.is_some() { PodPhase::Failed } else { status.phase };
    let sandbox = scene.observed.sandbox == SandboxState::Ready && notes.course != Course::Ended;
    let mut verdicts = Vec::with_capacity(7);
    if let Some(verdict) = notes.verdict.filter(|verdict| verdict.disruption) {
        let message = Some(verdict.message.clone());
        let disrupted = Verdict { holds: true, reason: Some("TerminationByKubelet"), message };
        verdicts.push((PodConditionType::DisruptionTarget, disrupted));
    }
    verdicts.push((PodConditionType::PodReadyToStartContainers, Verdict::from(sandbox)));
    verdicts.push((PodConditionType::Initialized, initialized(scene, status, notes)));
    let containers_ready = containers_ready(scene, status, phase);
    verdicts.push((PodConditionType::Ready, ready(scene, &containers_ready, &verdicts)));
    verdicts.push((PodConditionType::ContainersReady, containers_ready));
    let scheduled = notes.awaited_devices.map_or(Verdict::from(true), |awaited| Verdict {
        holds: false,
        reason: Some(UNSCHEDULABLE),
        message: Some(awaited.to_owned()),
    });
    verdicts.push((PodConditionType::PodScheduled, scheduled));
    let has_rule = |rule: &RestartRule| rule.action == RestartAction::RestartAllContainers;
    if scene.pod.all_containers().any(|container| container.restart_rules.iter().any(has_rule)) {
        verdicts.push((PodConditionType::AllContainersRestarting, restarting(scene, phase)));
    }
    let condition = |(kind, verdict): (PodConditionType, Verdict)| {
        let before = before(notes, kind);
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
    verdicts.into_iter().map(condition).collect()
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

fn before<'a>(notes: &Notes<'a>, kind: PodConditionType) -> Option<&'a PodCondition> {
    notes.previous?.conditions.iter().find(|condition| condition.kind == kind)
}

fn initialized(scene: &Scene<'_>, status: &PodStatus, notes: &Notes<'_>) -> Verdict {
    if status.phase == PodPhase::Succeeded {
        return Verdict { holds: true, reason: Some("PodCompleted"), message: None };
    }
    let has_run = |app: &ContainerStatus| {
        matches!(app.state, ContainerState::Running(_) | ContainerState::Terminated(_))
    };
    let was = before(notes, PodConditionType::Initialized);
    // Once initialized a pod stays so, also while its init containers run again.
    if status.container_statuses.iter().any(has_run)
        || was.is_some_and(|was| was.status == ConditionStatus::True)
    {
        return Verdict::from(true);
    }
    let incomplete =
        scene.parts().zip(&status.init_container_statuses).filter(|(part, init)| match part.role {
            Role::Sidecar => !init.started,
            Role::Init | Role::App | Role::Ephemeral => !init.ready,
        });
    match names(incomplete.map(|(_, init)| init)) {
        None => Verdict::from(true),
        Some(names) => Verdict {
            holds: false,
            reason: Some("ContainersNotInitialized"),
            message: Some(format!("containers with incomplete status: {names}")),
        },
    }
}

/// Whether the pod can serve: all containers are ready, and so are the conditions it names as its gates. Those
/// that nobody has set do not hold.
fn ready(scene: &Scene<'_>, containers_ready: &Verdict, known: &[(PodConditionType, Verdict)]) -> Verdict {
    if !containers_ready.holds {
        return containers_ready.clone();
    }
    let unready = scene.pod.spec.readiness_gates.iter().filter_map(|gate| {
        match known.iter().find(|(kind, _)| kind.as_str() == gate) {
            None => Some(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
            Some((_, verdict)) if verdict.holds => None,
            Some(_) => Some(format!("the status of pod readiness gate {gate:?} is not \"True\", but False")),
        }
    });
    let unready: Vec<_> = unready.collect();
    if unready.is_empty() {
        return Verdict::from(true);
    }
    Verdict { holds: false, reason: Some("ReadinessGatesNotReady"), message: Some(unready.join(", ")) }
}

fn containers_ready(scene: &Scene<'_>, status: &PodStatus, phase: PodPhase) -> Verdict {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    let serving = scene.parts().zip(all).filter(|(part, _)| part.role != Role::Init);
    match phase {
        PodPhase::Succeeded => Verdict { holds: false, reason: Some("PodCompleted"), message: None },
        PodPhase::Failed => Verdict { holds: false, reason: Some("PodFailed"), message: None },
        _ => match names(serving.map(|(_, status)| status).filter(|status| !status.ready)) {
            None => Verdict::from(true),
            Some(names) => Verdict {
                holds: false,
                reason: Some("ContainersNotReady"),
                message: Some(format!("containers with unready status: {names}")),
            },
        },
    }
}

fn restarting(scene: &Scene<'_>, phase: PodPhase) -> Verdict {
    match phase {
        PodPhase::Succeeded => Verdict { holds: false, reason: Some("PodCompleted"), message: None },
        PodPhase::Failed => Verdict { holds: false, reason: Some("PodFailed"), message: None },
        _ if scene.restarting => Verdict {
            holds: true,
            reason: Some("RestartAllContainersStarted"),
            message: Some("container exited with restart policy rule".to_owned()),
        },
        _ => Verdict::from(false),
    }
}

/// Names as Go prints a slice of them: `[a b]`; `None` when there is none.
fn names<'a>(containers: impl Iterator<Item = &'a ContainerStatus>) -> Option<String> {
    let names: Vec<&str> = containers.map(|container| container.name.as_str()).collect();
    if names.is_empty() { None } else { Some(format!("[{}]", names.join(" "))) }
}
