//! A container of a pod.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    ContainerSecurity, EnvFrom, EnvVar, ExtendedResource, Lifecycle, Name, Probes, Quantity, RestartPolicy,
    RestartRule,
};

/// Kubernetes' default for [`Container::termination_message_path`].
pub const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// One entry of `spec.containers` or `spec.initContainers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Unique within the pod.
    pub name: Name,
    /// The image's name as the manifest gives it.
    pub image: String,
    /// Kubernetes' default already applied: `Always` for `:latest` or no tag, else `IfNotPresent`.
    pub image_pull_policy: ImagePullPolicy,
    /// Replaces the image's entrypoint. `$(VAR)` is not yet expanded.
    pub command: Option<Vec<String>>,
    /// Replaces the image's command. `$(VAR)` is not yet expanded.
    pub args: Option<Vec<String>>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// In the manifest's order; set before `env`, and of two of one name the later counts.
    pub env_from: Vec<EnvFrom>,
    /// In the manifest's order; `$(VAR)` is not yet expanded.
    pub env: Vec<EnvVar>,
    /// Declared ports.
    pub ports: Vec<ContainerPort>,
    /// Requests and limits.
    pub resources: Resources,
    /// In the manifest's order.
    pub volume_mounts: Vec<VolumeMount>,
    /// `securityContext`.
    pub security: ContainerSecurity,
    /// Standard input is a pipe an attach can write to, instead of /dev/null.
    pub stdin: bool,
    /// Standard input closes after the first attach ends.
    pub stdin_once: bool,
    /// The container gets a terminal.
    pub tty: bool,
    /// Path inside the container, `/dev/termination-log` by default.
    pub termination_message_path: String,
    /// What a termination message falls back to.
    pub termination_message_policy: TerminationMessagePolicy,
    /// `startupProbe`, `livenessProbe` and `readinessProbe`.
    pub probes: Probes,
    /// `lifecycle`.
    pub lifecycle: Lifecycle,
    /// The container's own `restartPolicy`; the pod's when absent. An init container with `Always` is a sidecar.
    pub restart_policy: Option<RestartPolicy>,
    /// Looked at before the policy.
    pub restart_rules: Vec<RestartRule>,
}

/// One entry of `spec.ephemeralContainers`: runs once, in a pod that is there already. It has no ports,
/// resources, probes, hooks or restart policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EphemeralContainer {
    /// What it runs.
    pub container: Container,
    /// `targetContainerName`: the container whose pid namespace it is in, where each has its own.
    pub target: Option<Name>,
    /// The Kubernetes object with its defaults, as JSON: what users are shown.
    pub object: String,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImagePullPolicy {
    /// The registry is asked at every start of a container.
    Always,
    /// Pulled when not in the store.
    IfNotPresent,
    /// Only what is in the store.
    Never,
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    /// An IANA service name, unique within the pod.
    pub name: Option<String>,
    /// 1 to 65535.
    pub container_port: u16,
    /// The port on the host.
    pub host_port: Option<u16>,
    /// The host's address to bind.
    pub host_ip: Option<std::net::IpAddr>,
    /// The transport.
    pub protocol: Protocol,
}

/// A port's transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// `resources`, Kubernetes' defaulting applied: a missing request equals its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// What the container is guaranteed.
    pub requests: ResourceList,
    /// What the container may not exceed.
    pub limits: ResourceList,
    /// How many devices it gets of each extended resource, which is request and limit in one. None is 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extended: BTreeMap<ExtendedResource, u64>,
}

/// Amounts of resources by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceList {
    /// In CPUs.
    pub cpu: Option<Quantity>,
    /// In bytes.
    pub memory: Option<Quantity>,
    /// Every other resource but the extended ones, by its full name.
    pub other: BTreeMap<String, Quantity>,
}

/// One entry of `volumeMounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume's name.
    pub name: Name,
    /// Path inside the container.
    pub mount_path: String,
    /// Path inside the volume, relative and without `..`.
    pub sub_path: Option<PathBuf>,
    /// Mounted read-only.
    pub read_only: bool,
    /// How mounts travel between host and container.
    pub propagation: MountPropagation,
}

/// `mountPropagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// `rprivate`.
    #[default]
    None,
    /// `rslave`.
    HostToContainer,
    /// `rshared`; privileged containers only.
    Bidirectional,
}

/// `terminationMessagePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationMessagePolicy {
    /// The file's content.
    #[default]
    File,
    /// The end of the log when the file is empty and the container failed.
    FallbackToLogsOnError,
}

// === impl Container ===

impl Container {
    /// A container of an image, with Kubernetes' defaults.
    pub fn new(name: Name, image: impl Into<String>) -> Self {
        Self {
            name,
            image: image.into(),
            image_pull_policy: ImagePullPolicy::IfNotPresent,
            command: None,
            args: None,
            working_dir: None,
            env_from: Vec::new(),
            env: Vec::new(),
            ports: Vec::new(),
            resources: Resources::default(),
            volume_mounts: Vec::new(),
            security: ContainerSecurity::default(),
            stdin: false,
            stdin_once: false,
            tty: false,
            termination_message_path: TERMINATION_MESSAGE_PATH.to_owned(),
            termination_message_policy: TerminationMessagePolicy::default(),
            probes: Probes::default(),
            lifecycle: Lifecycle::default(),
            restart_policy: None,
            restart_rules: Vec::new(),
        }
    }

    /// Whether it is a sidecar, where it stands among the init containers: it runs beside those after it.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == Some(RestartPolicy::Always)
    }
}

// === impl ImagePullPolicy ===

impl ImagePullPolicy {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}
