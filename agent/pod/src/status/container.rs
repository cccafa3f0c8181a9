//! `status.containerStatuses[]`.

use std::collections::BTreeSet;

use coracle_model::{
    AllocatedDevice, AllocatedResource, ContainerState, ContainerStatus, ExtendedResource, Running,
    Terminated, Waiting,
};

use super::{Course, Notes, mounts};
use crate::backoff::go_duration;
use crate::ports::{ObservedContainer, ObservedState};
use crate::record::StopCause;
use crate::scene::{Part, Role, Scene};
use crate::view::View;

/// Exit code of a container whose end nobody saw.
const UNKNOWN_EXIT_CODE: i32 = 137;
/// Exit code of a container that was ended with all others, whatever it really was; as in the kubelet.
const RESTARTED_EXIT_CODE: i32 = 137;

/// The reason by which the kubelet tells that all containers are, or were, restarted.
pub(crate) const RESTARTING_ALL: &str = "RestartingAllContainers";
const RESTARTING_ALL_MESSAGE: &str = "The container is removed because RestartAllContainers in place";

/// The reason by which the kubelet tells that a postStart hook has failed.
const POST_START_HOOK_ERROR: &str = "PostStartHookError";

/// The status of one container.
pub(super) fn status(
    scene: &Scene<'_>,
    part: Part<'_>,
    view: &View<'_>,
    notes: &Notes<'_>,
) -> ContainerStatus {
    let before = previous(part, notes);
    let latest = view.latest();
    let mut last_state = view.live.and(view.dead).and_then(|dead| past(scene, dead));
    let state = match latest {
        None => match before {
            // It was there: its end was seen, or is all that can be said of it.
            Some(before) if before.container_id.is_some() => return lost(before),
            _ => waiting(scene, part, notes),
        },
        Some(live) if live.is_live() => live_state(scene, part, live, notes),
        Some(dead) => match restart(scene, part, dead, notes) {
            Some(reason) => {
                last_state = past(scene, dead);
                ContainerState::Waiting(reason)
            }
            // What ran before is forgotten by the runtime, but still true.
            None => {
                last_state = before
                    .filter(|before| before.container_id == Some(dead.id))
                    .and_then(|before| before.last_state.clone());
                terminated(dead).map_or_else(|| waiting(scene, part, notes), ContainerState::Terminated)
            }
        },
    };
    let runs = latest.filter(|_| matches!(state, ContainerState::Running(_)));
    // What was ended with all others is as good as gone, and as good as started again.
    let gone = matches!(state, ContainerState::Waiting(_))
        && latest.is_some_and(|latest| !latest.is_live() && is_restarted(scene, latest));
    ContainerStatus {
        name: part.spec.name.to_string(),
        ready: match (&state, part.role) {
            (ContainerState::Terminated(ended), Role::Init) => ended.exit_code == 0,
            (_, Role::Init | Role::Ephemeral) => false,
            (_, Role::Sidecar | Role::App) => runs.is_some_and(|live| scene.is_ready(part.spec, live)),
        },
        started: runs.is_some_and(|live| scene.has_started(part.spec, live)),
        state,
        last_state,
        restart_count: latest.map_or(0, |latest| latest.attempt + u32::from(gone)),
        image: part.spec.image.clone(),
        image_id: latest.map(|latest| latest.image_id.clone()).unwrap_or_default(),
        container_id: latest.filter(|_| !gone).map(|latest| latest.id),
        stop_signal: latest.and_then(|latest| latest.stop_signal),
        volume_mounts: latest
            .filter(|_| !gone)
            .map_or_else(Vec::new, |latest| mounts::statuses(scene.pod, part.spec, latest)),
        allocated_resources: allocated(part, notes),
    }
}

/// The devices the container was given, and how they are.
fn allocated(part: Part<'_>, notes: &Notes<'_>) -> Vec<AllocatedResource> {
    let given = notes.devices.and_then(|devices| devices.get(&part.spec.name)).into_iter().flatten();
    let resource = |(resource, ids): (&ExtendedResource, &BTreeSet<String>)| AllocatedResource {
        resource: resource.clone(),
        devices: ids
            .iter()
            .map(|id| AllocatedDevice { id: id.clone(), health: (notes.health)(resource, id) })
            .collect(),
    };
    given.map(resource).collect()
}

/// The last word on a container that never ran, or whose end nobody saw.
pub(super) fn close(status: &mut ContainerStatus) {
    let message = "The container could not be located when the pod was terminated";
    status.state = ContainerState::Terminated(unknown(message));
    status.ready = false;
    status.started = false;
}

fn previous<'a>(part: Part<'_>, notes: &Notes<'a>) -> Option<&'a ContainerStatus> {
    let status = notes.previous?;
    status.all_containers().find(|container| part.spec.name == *container.name)
}

/// The state of one that is yet to be started for the first time.
fn waiting(scene: &Scene<'_>, part: Part<'_>, notes: &Notes<'_>) -> ContainerState {
    let (reason, message) = match (notes.failures.get(&part.index), notes.pod_failure) {
        (Some(failure), _) => (failure.reason.clone(), Some(failure.message.clone())),
        (None, None) if let Some(target) = scene.awaited_target(part) => {
            let message = format!("waiting for container {target}, the target, to run");
            ("ContainerCreating".to_owned(), Some(message))
        }
        (None, failure) if scene.pod.spec.init_containers.is_empty() => {
            ("ContainerCreating".to_owned(), failure.map(ToString::to_string))
        }
        (None, failure) => ("PodInitializing".to_owned(), failure.map(ToString::to_string)),
    };
    ContainerState::Waiting(Waiting { reason, message })
}

fn live_state(
    scene: &Scene<'_>,
    part: Part<'_>,
    live: &ObservedContainer,
    notes: &Notes<'_>,
) -> ContainerState {
    let ObservedState::Running { started_at } = live.state else { return waiting(scene, part, notes) };
    // A container counts as running once its postStart hook has been carried out.
    if notes.course == Course::Running {
        if let Some(failed) = post_start_error(scene, live) {
            return ContainerState::Waiting(failed);
        }
        if scene.awaits_post_start(part.spec, live) {
            return waiting(scene, part, notes);
        }
    }
    ContainerState::Running(Running { started_at })
}

/// Why a container that ended waits to be started again; `None` when its end is its state.
fn restart(
    scene: &Scene<'_>,
    part: Part<'_>,
    dead: &ObservedContainer,
    notes: &Notes<'_>,
) -> Option<Waiting> {
    if notes.course != Course::Running || part.role == Role::Ephemeral {
        return None;
    }
    if scene.restarting {
        let message = Some(RESTARTING_ALL_MESSAGE.to_owned());
        return Some(Waiting { reason: RESTARTING_ALL.to_owned(), message });
    }
    if let Some(back_off) = notes.back_off.get(&part.index) {
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(back_off.delay),
            part.spec.name,
            scene.pod.key.name,
            scene.pod.key.namespace,
            scene.pod.uid
        );
        return Some(Waiting { reason: "CrashLoopBackOff".to_owned(), message: Some(message) });
    }
    if let Some(failure) = notes.failures.get(&part.index) {
        return Some(Waiting { reason: failure.reason.clone(), message: Some(failure.message.clone()) });
    }
    if scene.is_left_behind(dead) {
        let ContainerState::Waiting(waiting) = waiting(scene, part, notes) else { return None };
        return Some(waiting);
    }
    if !scene.restarts(part, dead) {
        return None;
    }
    match &dead.state {
        // Its program was never executed, and it is about to be tried again.
        ObservedState::Exited { exit_code, started_at: None, message, .. } if *exit_code != 0 => {
            Some(Waiting { reason: "RunContainerError".to_owned(), message: message.clone() })
        }
        _ => post_start_error(scene, dead),
    }
}

fn post_start_error(scene: &Scene<'_>, container: &ObservedContainer) -> Option<Waiting> {
    match scene.stop_cause(container.id)? {
        StopCause::PostStart(said) => {
            let message = Some(said.clone()).filter(|said| !said.is_empty());
            Some(Waiting { reason: POST_START_HOOK_ERROR.to_owned(), message })
        }
        StopCause::Probe(_) | StopCause::RestartAll => None,
    }
}

/// Whether a container ended, or is about to count as ended, with all others.
fn is_restarted(scene: &Scene<'_>, dead: &ObservedContainer) -> bool {
    scene.restarting || scene.is_left_behind(dead)
}

/// How a run before the present one has ended.
fn past(scene: &Scene<'_>, dead: &ObservedContainer) -> Option<Terminated> {
    let ended = terminated(dead)?;
    if !is_restarted(scene, dead) {
        return Some(ended);
    }
    let message = Some(RESTARTING_ALL_MESSAGE.to_owned());
    let reason = RESTARTING_ALL.to_owned();
    Some(Terminated { exit_code: RESTARTED_EXIT_CODE, signal: None, reason, message, ..ended })
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
