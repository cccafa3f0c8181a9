//! `status.conditions`, by the kubelet's rules.

use coracle_model::{
    ConditionStatus, ContainerState, ContainerStatus, PodCondition, PodConditionType, PodPhase, PodStatus,
    RestartAction, RestartRule,
};

use super::{Course, Notes};
use crate::ports::SandboxState;
use crate::scene::{Role, Scene};

/// The conditions, in the kubelet's order, each with the time its status last changed.
pub(super) fn conditions(scene: &Scene<'_>, status: &PodStatus, notes: &Notes<'_>) -> Vec<PodCondition> {
    let sandbox = scene.observed.sandbox == SandboxState::Ready && notes.course != Course::Ended;
    let containers_ready = containers_ready(scene, status);
    let mut verdicts = vec![
        (PodConditionType::PodReadyToStartContainers, Verdict::from(sandbox)),
        (PodConditionType::Initialized, initialized(scene, status, notes)),
        (PodConditionType::Ready, containers_ready.clone()),
        (PodConditionType::ContainersReady, containers_ready),
        (PodConditionType::PodScheduled, Verdict::from(true)),
    ];
    let has_rule = |rule: &RestartRule| rule.action == RestartAction::RestartAllContainers;
    if scene.pod.all_containers().any(|container| container.restart_rules.iter().any(has_rule)) {
        verdicts.push((PodConditionType::AllContainersRestarting, restarting(scene, status)));
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
            Role::Init | Role::App => !init.ready,
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

fn containers_ready(scene: &Scene<'_>, status: &PodStatus) -> Verdict {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    let serving = scene.parts().zip(all).filter(|(part, _)| part.role != Role::Init);
    match status.phase {
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

fn restarting(scene: &Scene<'_>, status: &PodStatus) -> Verdict {
    match status.phase {
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
