//! What a pod's worker needs of the rest of the node, as traits.
//!
//! The worker decides; these do. Every method is idempotent: the worker calls it again after a
//! failure, a cancellation or a restart of the agent, and what was already done counts as done.
//!
//! Cancellation is dropping the future. A dropped call may leave its work half done or done, but
//! nothing of it takes effect any more once a later call for the same pod has returned: a container
//! whose creation was given up does not appear after [`Runtime::remove_sandbox`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{
    Container, ContainerEdits, ContainerId, DeviceHealth, EventType, ExtendedResource, Handler, Name, Pod,
    PodDevices, PodUid, ProbeKind,
};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::PodRecord;
pub use crate::observed::{ImageRef, Observed, ObservedContainer, ObservedState, SandboxState};

/// A step that failed, in the two parts Kubernetes shows: a CamelCase reason and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failure {
    /// Such as `CreateContainerError`, `StartError`, `ErrImageNeverPull`, `FailedMount`.
    pub reason: String,
    /// What was tried, on what, why it failed, what to do.
    pub message: String,
    /// The image that cannot be had, where it is another than the container's own.
    pub image: Option<String>,
}

/// The container runtime.
pub trait Runtime: Send + Sync + 'static {
    /// Makes the pod's cgroup and namespaces, unless they are there and alive.
    fn ensure_sandbox(&self, pod: &Arc<Pod>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Prepares the container up to, but not including, the execution of its program. `attempt` is its
    /// restart count and names its log file; `edits` is what its devices bring.
    fn create_container(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        attempt: u32,
        image: &ImageRef,
        edits: ContainerEdits,
    ) -> impl Future<Output = Result<ContainerId, Failure>> + Send;

    /// Executes the program of a created container. On failure the container is observed as exited, or still as
    /// created when it can be tried again.
    fn start_container(
        &self,
        pod: &PodUid,
        container: ContainerId,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Sends the stop signal, waits for at most `grace`, then kills; returns once the container ended.
    /// A second call with a shorter grace shortens the first.
    fn stop_container(
        &self,
        pod: &PodUid,
        container: ContainerId,
        grace: Duration,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Forgets a container that ended: its writable layer, cgroup, record and log.
    fn remove_container(
        &self,
        pod: &PodUid,
        container: ContainerId,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Ends whatever of the pod still runs and removes all it has on the host but its logs and volumes.
    fn remove_sandbox(&self, pod: &PodUid) -> impl Future<Output = Result<(), Failure>> + Send;

    /// What is there now. Answers from memory, and reflects every call that has returned: a worker that
    /// did not find the container it has just created would create a second one.
    ///
    /// A container that can no longer be started is not [`ObservedState::Created`], and one whose start was
    /// ordered by an agent before this one is started: adoption forgets the one and completes the other.
    fn observe(&self, pod: &PodUid) -> Observed;
}

/// The image store.
pub trait Images: Send + Sync + 'static {
    /// Makes the container's image available, and those of the volumes that it has mounted, as their pull policies say.
    fn ensure_image(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
    ) -> impl Future<Output = Result<ImageRef, Failure>> + Send;
}

/// The pod's volumes and directories.
pub trait Volumes: Send + Sync + 'static {
    /// Makes every volume of the pod ready to be mounted into containers.
    fn ensure_volumes(&self, pod: &Arc<Pod>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Writes what the pod's ConfigMaps and Secrets say now into those of its volumes that were made.
    fn refresh_volumes(&self, pod: &Arc<Pod>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Measures the pod's volumes on disk that have a limit. What exceeds one, in the kubelet's words.
    fn over_limit(&self, pod: &Arc<Pod>) -> impl Future<Output = Result<Option<String>, Failure>> + Send;

    /// Removes what `ensure_volumes` made. Called when nothing of the pod can still run.
    fn release_volumes(&self, pod: &PodUid) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Removes the pod's logs. The last step before the pod is gone.
    fn release_logs(&self, pod: &Arc<Pod>) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The device manager.
pub trait Devices: Send + Sync + 'static {
    /// Gives each container of the pod the devices it asks for, or none of them any. That is on record when this
    /// returns, and stays so over any restart until they are released; what a pod has already is told again.
    fn allocate(&self, pod: &Arc<Pod>) -> impl Future<Output = Result<Allocation, Failure>> + Send;

    /// Has the plugins prepare the devices of a container that is about to be created, and tells what they bring.
    fn prepare(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
    ) -> impl Future<Output = Result<ContainerEdits, Failure>> + Send;

    /// Takes back what the pod was given, and what is being given to it. Called when nothing of it can still run.
    fn release_devices(&self, pod: &PodUid) -> impl Future<Output = Result<(), Failure>> + Send;

    /// How a device is. Answers from memory; a change is told by [`Pods::devices_changed`](crate::Pods).
    fn health(&self, resource: &ExtendedResource, device: &str) -> DeviceHealth;
}

/// What comes of a pod's asking for devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// They are its own.
    Given(PodDevices),
    /// Nobody can tell yet, as when a plugin is not there: the pod waits until what it asks for changes. Says for
    /// what, for people.
    Later(String),
    /// Pods have what it asks for. It waits if one of these is being ended, and else is not taken up.
    Lacking {
        /// Which resource.
        resource: ExtendedResource,
        /// The pods that have devices of it.
        holders: BTreeSet<PodUid>,
        /// What is said if it does not wait.
        refusal: Refusal,
    },
    /// It cannot have them.
    Refused(Refusal),
}

/// What runs the probes of containers, and knows what they have found.
pub trait Probes: Send + Sync + 'static {
    /// Has exactly these containers of the pod probed, as their specifications say. One that is probed
    /// already goes on as it is; one that is not named any more is no longer probed. Answers at once;
    /// whenever a result changes, the pod's worker is woken. Failures of single probes are its own to
    /// tell in the pod's events (`Unhealthy`).
    fn set_probed(&self, pod: &Arc<Pod>, containers: Vec<Probed>);

    /// What was found of the containers being probed. Answers from memory.
    fn findings(&self, pod: &PodUid) -> BTreeMap<ContainerId, Findings>;
}

/// A container that runs, has passed its postStart hook and has probes.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    /// Which container.
    pub id: ContainerId,
    /// The name of the specification's container it runs.
    pub name: String,
    /// When its program was executed: initial delays count from it.
    pub started_at: Timestamp,
    /// What an agent before this one has found of it.
    pub known: Option<Findings>,
    /// The pod is being ended: its readiness is still asked for, so that who sends it work can see it
    /// leave, and it is no longer ended for what the other two find.
    pub readiness_only: bool,
}

/// What the probes of one container have found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe says yes; without one, the container has started.
    pub ready: bool,
    /// Why the container is to be ended: its startup or liveness probe has failed. Never taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<ProbeFailed>,
}

/// A startup or liveness probe that has failed as often as its threshold says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailed {
    /// Which probe.
    pub kind: ProbeKind,
    /// What the container has between the stop signal and SIGKILL; the pod's grace period when absent.
    pub grace: Option<Duration>,
}

/// What carries out lifecycle hooks.
pub trait Hooks: Send + Sync + 'static {
    /// Carries out a hook of a container that runs, for at most `timeout` if there is one. Programs that it has
    /// started and that outlive it are the container's from then on, whether it has failed or not, and end with
    /// the container. When it takes too long, or this is dropped, the hook and all it has started is killed. The
    /// failure's message tells what the hook did, as far as it is short.
    fn run_hook(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        id: ContainerId,
        handler: &Handler,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Where the agent keeps what it must know of its pods after a restart of its own, or of the machine.
pub trait Records: Send + Sync + 'static {
    /// Writes the record in place of the one before, durably and at once.
    fn save(&self, record: &PodRecord) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Keeps a copy of the record for after a reboot of the machine, in place of the one before. Waits for the
    /// disk. Is carried out once begun, also when the call is dropped.
    fn checkpoint(&self, record: &PodRecord) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Removes the pod's record, and the copy for after a reboot: the pod is gone.
    fn forget(&self, pod: &PodUid) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Who is told what happens to pods: the node's events, for people.
pub trait Events: Send + Sync + 'static {
    /// Notes that something happened to the pod now. Returns at once and fails nobody: a worker waits for no
    /// disk to tell what it did. Who listens counts what is told again and again, and may drop some of it.
    fn record(&self, pod: &Pod, event: PodEvent<'_>);
}

/// The wall clock, on which containers' times are, and one for what has to be right whatever that is set to.
pub trait Clock: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Timestamp;

    /// How long the machine has been up, sleep included, which nobody sets: `CLOCK_BOOTTIME`.
    fn uptime(&self) -> Duration;
}

/// Everything a pod's worker needs, in one bundle.
pub trait Ports: Send + Sync + 'static {
    /// The container runtime.
    type Runtime: Runtime;
    /// The image store.
    type Images: Images;
    /// Volumes and logs.
    type Volumes: Volumes;
    /// Devices.
    type Devices: Devices;
    /// What runs probes.
    type Probes: Probes;
    /// What carries out hooks.
    type Hooks: Hooks;
    /// What survives the agent.
    type Records: Records;
    /// Who is told what happens.
    type Events: Events;
    /// The wall clock; [`SystemClock`] but in tests.
    type Clock: Clock;

    /// Whether the node takes a new pod up: the kubelet's admission. Answers from memory. A pod is asked about
    /// once; one that is refused has failed with that.
    fn admit(&self, pod: &Pod) -> Result<(), Refusal>;

    /// The node's addresses: at most one of a family, its primary family first. Answers from memory.
    fn node_addresses(&self) -> Arc<[IpAddr]>;

    /// The container runtime.
    fn runtime(&self) -> &Self::Runtime;
    /// The image store.
    fn images(&self) -> &Self::Images;
    /// Volumes and logs.
    fn volumes(&self) -> &Self::Volumes;
    /// The device manager.
    fn devices(&self) -> &Self::Devices;
    /// What runs probes.
    fn probes(&self) -> &Self::Probes;
    /// What carries out hooks.
    fn hooks(&self) -> &Self::Hooks;
    /// What survives the agent.
    fn records(&self) -> &Self::Records;
    /// Who is told what happens.
    fn events(&self) -> &Self::Events;
    /// The wall clock.
    fn clock(&self) -> &Self::Clock;
}

/// Something that happened to a pod, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent<'a> {
    /// Whether it is as it should be.
    pub kind: EventType,
    /// CamelCase, such as `Started` or `BackOff`.
    pub reason: &'a str,
    /// For people.
    pub message: String,
    /// The container of the pod it is about; `None` when it is about the pod.
    pub container: Option<&'a Name>,
}

/// Why a pod is not taken up, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// CamelCase, such as `SysctlForbidden`: `status.reason`, and the event's.
    pub reason: Cow<'static, str>,
    /// For people.
    pub message: String,
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

// === impl Failure ===

impl Failure {
    /// A failure with Kubernetes' reason and a sentence.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), image: None }
    }

    /// The same, about an image that is not the container's own.
    pub fn of_image(self, image: &str) -> Self {
        Self { image: Some(image.to_owned()), ..self }
    }
}

// === impl SystemClock ===

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uptime(&self) -> Duration {
        let uptime = clock_gettime(ClockId::Boottime);
        // Never negative: it begins with 0.
        Duration::new(u64::try_from(uptime.tv_sec).unwrap_or(0), u32::try_from(uptime.tv_nsec).unwrap_or(0))
    }
}
