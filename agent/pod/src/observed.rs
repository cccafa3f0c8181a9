//! What the runtime has of a pod, as it tells it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use coracle_model::{ContainerId, Signal};
use jiff::Timestamp;

/// An image that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// The digest of its configuration, `sha256:...`.
    pub id: String,
    /// What a status shows as `imageID`: the repository and digest it was pulled by, or the identifier of one that
    /// came from no registry.
    pub shown: String,
}

/// What the runtime has of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Whether the pod's namespaces are there and alive.
    pub sandbox: SandboxState,
    /// How often the sandbox was made again: 0 for the pod's first. As in the CRI's sandbox metadata.
    pub sandbox_attempt: u32,
    /// The sandbox's own addresses, at most one of a family, the node's primary family first. None in the host's
    /// network.
    pub addresses: Vec<IpAddr>,
    /// Every container not yet removed, in order of creation.
    pub containers: Vec<ObservedContainer>,
}

/// The state of a pod's sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxState {
    /// None was made, or it was removed.
    #[default]
    Absent,
    /// pause runs, and its network is set up.
    Ready,
    /// pause died: its containers were killed and a new sandbox is needed.
    Dead,
}

/// A container the runtime knows.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedContainer {
    /// Its identifier.
    pub id: ContainerId,
    /// The name of the specification's container it runs.
    pub name: String,
    /// The restart count it was created with.
    pub attempt: u32,
    /// The [`Observed::sandbox_attempt`] it was created in: init containers run again in a new sandbox. `None`
    /// of one that only the pod's record still tells of.
    pub sandbox_attempt: Option<u32>,
    /// [`ImageRef::shown`] of the image it was created from.
    pub image_id: String,
    /// The same of the images it has as volumes, by volume.
    pub volume_images: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// What it is sent first when it is to end.
    pub stop_signal: Option<Signal>,
    /// Where it is in its life.
    pub state: ObservedState,
}

/// A container's life.
#[derive(Clone, Debug, PartialEq)]
pub enum ObservedState {
    /// Prepared; its program was not executed.
    Created,
    /// Its program runs.
    Running {
        /// When it was executed.
        started_at: Timestamp,
    },
    /// It ended.
    Exited {
        /// 0 to 255; 128 plus the signal's number when a signal ended it.
        exit_code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
        reason: String,
        /// For people.
        message: Option<String>,
        /// When its program was executed; `None` when it never was.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
    },
}

// === impl ObservedContainer ===

impl ObservedContainer {
    /// Whether it has not ended: created or running.
    pub fn is_live(&self) -> bool {
        !matches!(self.state, ObservedState::Exited { .. })
    }

    /// Whether it ended with exit code 0.
    pub fn succeeded(&self) -> bool {
        matches!(self.state, ObservedState::Exited { exit_code: 0, .. })
    }
}
