//! What a pod is seen to be.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ContainerId, DeviceHealth, ExtendedResource, QosClass, Signal};

/// `pod.status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodStatus {
    /// The short form.
    pub phase: PodPhase,
    /// In Kubernetes' usual order.
    pub conditions: Vec<PodCondition>,
    /// CamelCase, when the pod as a whole has something to say.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// The node's addresses, at most one of a family, its primary family first.
    #[serde(default)]
    pub host_ips: Vec<IpAddr>,
    /// The pod's own, in the same order of families. One that has ended is still shown with those it had.
    #[serde(default)]
    pub pod_ips: Vec<IpAddr>,
    /// When the node took the pod up.
    pub start_time: Option<Timestamp>,
    /// In the order of the specification.
    pub init_container_statuses: Vec<ContainerStatus>,
    /// In the order of the specification.
    pub container_statuses: Vec<ContainerStatus>,
    /// In the order of the specification.
    #[serde(default)]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
    /// Derived from requests and limits.
    pub qos_class: QosClass,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodPhase {
    /// Some container has not been started yet.
    Pending,
    /// At least one container runs or is being restarted.
    Running,
    /// All ended with 0 and none will be restarted.
    Succeeded,
    /// All ended, at least one in failure, and none will be restarted.
    Failed,
    /// The state could not be learned.
    Unknown,
}

/// One entry of `status.conditions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodCondition {
    /// Which.
    pub kind: PodConditionType,
    /// Whether.
    pub status: ConditionStatus,
    /// CamelCase.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// When `status` last changed.
    pub last_transition_time: Option<Timestamp>,
}

/// `conditions[].type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PodConditionType {
    /// The sandbox is there and its network is set up.
    PodReadyToStartContainers,
    /// All init containers have completed.
    Initialized,
    /// The pod can serve requests.
    Ready,
    /// All containers are ready.
    ContainersReady,
    /// The pod has its node.
    PodScheduled,
    /// All containers are being ended, to be started again.
    AllContainersRestarting,
    /// The pod is ended for the node's sake.
    DisruptionTarget,
}

/// `conditions[].status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// Holds.
    True,
    /// Does not hold.
    False,
    /// Not known.
    Unknown,
}

/// `containerStatuses[]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// The container's name.
    pub name: String,
    /// Now.
    pub state: ContainerState,
    /// How the run before ended.
    pub last_state: Option<Terminated>,
    /// Can serve requests.
    pub ready: bool,
    /// Has passed its start.
    pub started: bool,
    /// How often it was started again.
    pub restart_count: u32,
    /// The image's name as the specification gives it.
    pub image: String,
    /// The image by digest: `docker.io/library/nginx@sha256:...`, or its identifier where it came from no registry.
    /// Empty before it is known.
    pub image_id: String,
    /// The running or last container.
    pub container_id: Option<ContainerId>,
    /// What that one is sent first when it is to end.
    #[serde(default)]
    pub stop_signal: Option<Signal>,
    /// What that one has mounted, in the order of the specification.
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMountStatus>,
    /// `allocatedResourcesStatus`: the devices it was given, by resource, and how they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocated_resources: Vec<AllocatedResource>,
}

/// `containerStatuses[].volumeMounts[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMountStatus {
    /// The volume's name.
    pub name: String,
    /// Path inside the container, as the specification has it.
    pub mount_path: String,
    /// Nothing can be written through it. To what is mounted below it, it can (`recursiveReadOnly: Disabled`).
    pub read_only: bool,
    /// `volumeStatus.image.imageRef` of an image volume: as a container's `imageID`.
    pub image_ref: Option<String>,
}

/// The devices of one resource that a container was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatedResource {
    /// Which resource.
    pub resource: ExtendedResource,
    /// In order of their identifiers.
    pub devices: Vec<AllocatedDevice>,
}

/// A device a container was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatedDevice {
    /// What its plugin knows it by: `resourceID`.
    pub id: String,
    /// Whether it works.
    pub health: DeviceHealth,
}

/// `containerStatuses[].state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Not running, to be started.
    Waiting(Waiting),
    /// Running.
    Running(Running),
    /// Ended.
    Terminated(Terminated),
}

/// Why a container does not run yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// CamelCase, such as `ContainerCreating` or `CrashLoopBackOff`.
    pub reason: String,
    /// For people.
    pub message: Option<String>,
}

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// When its program was executed.
    pub started_at: Timestamp,
}

/// A container that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminated {
    /// 0 to 255; 128 plus the signal's number when a signal ended it.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`, ...
    pub reason: String,
    /// For people: the termination message.
    pub message: Option<String>,
    /// When its program was executed; `None` when it never was.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Which container it was.
    pub container_id: Option<ContainerId>,
}

// === impl PodStatus ===

impl PodStatus {
    /// The status of every container: init containers first, ephemeral ones last, in order.
    pub fn all_containers(&self) -> impl Iterator<Item = &ContainerStatus> {
        let apps = self.init_container_statuses.iter().chain(&self.container_statuses);
        apps.chain(&self.ephemeral_container_statuses)
    }
}

// === impl PodPhase ===

impl PodPhase {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether no container of the pod will ever run again.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

// === impl PodConditionType ===

impl PodConditionType {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodReadyToStartContainers => "PodReadyToStartContainers",
            Self::Initialized => "Initialized",
            Self::Ready => "Ready",
            Self::ContainersReady => "ContainersReady",
            Self::PodScheduled => "PodScheduled",
            Self::AllContainersRestarting => "AllContainersRestarting",
            Self::DisruptionTarget => "DisruptionTarget",
        }
    }
}

// === impl ConditionStatus ===

impl ConditionStatus {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}
