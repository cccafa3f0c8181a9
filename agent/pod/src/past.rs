//! Containers that only the pod's record still tells of: those of an earlier boot, and those that were lost.

use std::collections::BTreeMap;

use coracle_model::{ContainerId, ContainerState, ContainerStatus, PodStatus, Terminated};
use jiff::Timestamp;

use crate::ports::{Observed, ObservedContainer, ObservedState};
use crate::status::RESTARTING_ALL;

/// How containerd tells of a container that ended with the machine.
const REBOOTED_EXIT_CODE: i32 = 255;
const REBOOTED: &str = "Unknown";

/// What has become of containers that ran when they were seen last and that the runtime does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The machine was booted again. They ended with it, as containerd tells it.
    Reboot,
    /// Nobody knows, as the kubelet tells it.
    Unknown,
}

/// The containers of a status that the runtime does not know, and that no later run has replaced, as containers
/// that ended.
pub(crate) fn past(
    seen: &PodStatus,
    observed: &Observed,
    loss: Loss,
    now: Timestamp,
) -> Vec<ObservedContainer> {
    let past = seen.all_containers().filter_map(|status| last_run(status, loss, now));
    let is_known = |past: &ObservedContainer| {
        let mut same = observed.containers.iter().filter(|one| one.name == past.name);
        same.any(|one| one.attempt >= past.attempt)
    };
    past.filter(|past| !is_known(past)).collect()
}

/// Whether a container ended with the machine: that is no crash of its own.
pub(crate) fn ended_with_machine(container: &ObservedContainer) -> bool {
    let ObservedState::Exited { exit_code, reason, .. } = &container.state else { return false };
    container.sandbox_attempt.is_none() && *exit_code == REBOOTED_EXIT_CODE && reason == REBOOTED
}

/// The last run of a container that its status tells of, as one that ended.
fn last_run(status: &ContainerStatus, loss: Loss, now: Timestamp) -> Option<ObservedContainer> {
    let last = status.last_state.as_ref();
    let (id, attempt, state) = match &status.state {
        ContainerState::Terminated(ended) => (ended.container_id?, status.restart_count, exited(ended, now)),
        ContainerState::Running(running) => {
            (status.container_id?, status.restart_count, loss.exit(running.started_at, now))
        }
        // One that was about to run, or whose postStart hook was being carried out.
        ContainerState::Waiting(_) if unlike(status.container_id, last) => {
            (status.container_id?, status.restart_count, loss.exit(now, now))
        }
        ContainerState::Waiting(_) => {
            let last = last?;
            // One that was ended with all others counts as started again.
            let counted = u32::from(last.reason == RESTARTING_ALL);
            (last.container_id?, status.restart_count.saturating_sub(counted), exited(last, now))
        }
    };
    Some(ObservedContainer {
        id,
        name: status.name.clone(),
        attempt,
        sandbox_attempt: None,
        image_id: status.image_id.clone(),
        volume_images: images_of(status),
        created_at: started_at(&state).unwrap_or(now),
        stop_signal: status.stop_signal,
        state,
    })
}

/// The images of its volumes.
fn images_of(status: &ContainerStatus) -> BTreeMap<String, String> {
    let mounts = status.volume_mounts.iter();
    mounts.filter_map(|mount| Some((mount.name.clone(), mount.image_ref.clone()?))).collect()
}

fn unlike(id: Option<ContainerId>, last: Option<&Terminated>) -> bool {
    id.is_some() && id != last.and_then(|last| last.container_id)
}

fn exited(ended: &Terminated, now: Timestamp) -> ObservedState {
    ObservedState::Exited {
        exit_code: ended.exit_code,
        signal: ended.signal,
        reason: ended.reason.clone(),
        message: ended.message.clone(),
        started_at: ended.started_at,
        finished_at: ended.finished_at.unwrap_or(now),
    }
}

fn started_at(state: &ObservedState) -> Option<Timestamp> {
    match state {
        ObservedState::Exited { started_at, .. } => *started_at,
        ObservedState::Running { started_at } => Some(*started_at),
        ObservedState::Created => None,
    }
}

// === impl Loss ===

impl Loss {
    fn exit(self, started_at: Timestamp, now: Timestamp) -> ObservedState {
        let (exit_code, reason, message) = match self {
            Self::Reboot => (REBOOTED_EXIT_CODE, REBOOTED, None),
            Self::Unknown => {
                let message = "The container could not be located when the pod was deleted.  The container used to be Running";
                (137, "ContainerStatusUnknown", Some(message.to_owned()))
            }
        };
        ObservedState::Exited {
            exit_code,
            signal: None,
            reason: reason.to_owned(),
            message,
            started_at: Some(started_at),
            finished_at: now,
        }
    }
}
