//! What the runtime has of a pod, from memory.

use std::collections::BTreeMap;

use coracle_model::{ContainerId, PodUid};
use jiff::Timestamp;

use crate::pod::{ContainerState, PodState};
use crate::runtime::Runtime;

/// What there is of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSnapshot {
    /// Its sandbox.
    pub sandbox: SandboxStage,
    /// How often the sandbox was made again.
    pub sandbox_attempt: u32,
    /// In order of creation.
    pub containers: Vec<ContainerSnapshot>,
}

/// The state of a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxStage {
    /// None was made, or it was removed.
    #[default]
    Absent,
    /// pause runs.
    Ready,
    /// pause died.
    Dead,
}

/// A container that was created and not removed.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSnapshot {
    /// Its identifier.
    pub id: ContainerId,
    /// Its name in the pod.
    pub name: String,
    /// Its restart count.
    pub attempt: u32,
    /// The sandbox it was created in.
    pub sandbox_attempt: u32,
    /// What names its image in the pod's status (`imageID`).
    pub image_id: String,
    /// What names, in the same way, the images it has as volumes, by volume.
    pub volume_images: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// The number of the signal that asks it to end.
    pub stop_signal: i32,
    /// Where it is in its life.
    pub stage: ContainerStage,
}

/// A container's life.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerStage {
    /// Its program was not executed.
    Created,
    /// Its program runs.
    Running {
        /// When it was executed.
        started_at: Timestamp,
    },
    /// It ended, and all it wrote is in its log.
    Exited {
        /// 128 plus the signal's number when a signal ended it.
        exit_code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// In Kubernetes' words.
        reason: String,
        /// For people.
        message: Option<String>,
        /// When its program was executed; `None` when it never was.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
    },
}

impl Runtime {
    /// What there is of a pod. Answers from memory.
    pub fn observe(&self, uid: &PodUid) -> PodSnapshot {
        self.inner.pod(uid).map(|state| snapshot(&state)).unwrap_or_default()
    }
}

fn snapshot(state: &PodState) -> PodSnapshot {
    let data = state.data();
    let sandbox = match (&data.sandbox, data.dead) {
        (_, true) => SandboxStage::Dead,
        (Some(_), false) => SandboxStage::Ready,
        // Nobody has seen it die.
        (None, false) if data.unanswered => SandboxStage::Ready,
        (None, false) => SandboxStage::Absent,
    };
    let containers = data.containers.iter().map(|container| container_snapshot(container)).collect();
    PodSnapshot { sandbox, sandbox_attempt: data.attempt, containers }
}

fn container_snapshot(container: &ContainerState) -> ContainerSnapshot {
    let record = container.data().record.clone();
    let stage = match (record.exit, record.started_at) {
        (Some(exit), started_at) if container.has_ended() => ContainerStage::Exited {
            exit_code: exit.exit_code,
            signal: exit.signal,
            reason: exit.reason,
            message: exit.message,
            started_at,
            finished_at: exit.finished_at,
        },
        // Its exit is known a moment before its log is complete. Until then it is shown as it was: not as one to
        // be started, even if its program could not be executed.
        (Some(exit), None) => ContainerStage::Running { started_at: exit.finished_at },
        (_, Some(started_at)) => ContainerStage::Running { started_at },
        (None, None) => ContainerStage::Created,
    };
    ContainerSnapshot {
        id: record.id,
        name: record.name,
        attempt: record.attempt,
        sandbox_attempt: record.sandbox_attempt,
        image_id: record.image_id,
        volume_images: record.volume_images,
        created_at: record.created_at,
        stop_signal: record.stop_signal,
        stage,
    }
}
