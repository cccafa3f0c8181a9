//! Validated domain types of pods and containers, without I/O.
//!
//! What Kubernetes' wire types leave open (strings that must be names, quantities that must be
//! numbers, fields that have defaults) is decided once, by `coracle-manifest`, when a document is
//! decoded; every type here holds a value that needs no further check. The field names and their
//! meaning are those of the Kubernetes v1 API.

mod container;
mod expand;
mod id;
mod name;
mod pod;
mod qos;
mod quantity;
mod security;
mod status;
mod volume;

pub use container::{
    Container, ContainerPort, EnvVar, ImagePullPolicy, MountPropagation, Protocol, ResourceList, Resources,
    TerminationMessagePolicy, VolumeMount,
};
pub use expand::expand;
pub use id::{ContainerId, InvalidContainerId, InvalidPodUid, PodUid};
pub use name::{InvalidName, Name, validate_label, validate_subdomain};
pub use pod::{HostNamespaces, Pod, PodKey, PodSpec, RestartPolicy};
pub use qos::{QosClass, qos_class};
pub use quantity::{InvalidQuantity, Quantity};
pub use security::{Capabilities, ContainerSecurity, PodSecurity, ProcMount, SeccompProfile};
pub use status::{
    ConditionStatus, ContainerState, ContainerStatus, PodCondition, PodConditionType, PodPhase, PodStatus,
    Running, Terminated, Waiting,
};
pub use volume::{EmptyDirMedium, HostPathType, Volume, VolumeSource};
