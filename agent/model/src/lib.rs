//! Validated domain types of pods and containers, without I/O.
//!
//! What Kubernetes' wire types leave open (strings that must be names, quantities that must be
//! numbers, fields that have defaults) is decided once, by `coracle-manifest`, when a document is
//! decoded; every type here holds a value that needs no further check. The field names and their
//! meaning are those of the Kubernetes v1 API.

mod bandwidth;
mod config;
mod container;
mod device;
mod digest;
mod dns;
mod duration;
mod env_file;
mod environment;
mod event;
mod expand;
mod extended_resource;
mod hex;
mod host_port;
mod id;
mod image_name;
mod name;
mod platform;
mod pod;
mod probe;
mod qos;
mod quantity;
mod restart;
mod security;
mod signal;
mod source;
mod status;
mod volume;

pub use bandwidth::{BANDWIDTH_ANNOTATIONS, parse_bandwidth};
pub use config::{ConfigKey, ConfigObject};
pub use container::{
    Container, ContainerPort, EphemeralContainer, ImagePullPolicy, MountPropagation, Protocol, ResourceList,
    Resources, TERMINATION_MESSAGE_PATH, TerminationMessagePolicy, VolumeMount,
};
pub use device::{
    ContainerEdits, DeviceHealth, DeviceNode, DeviceNumbers, EditHook, EditMount, HookPoint, NetDevice,
    PodDevices,
};
pub use digest::{Digest, Hasher, InvalidDigest};
pub use dns::{DnsConfig, DnsOption, DnsPolicy, FqdnTooLong, HostAlias, PodDns, PodNames};
pub use duration::go_duration;
pub use env_file::env_file_value;
pub use environment::{
    ConfigKind, EnvFrom, EnvValue, EnvVar, FileKeySelector, KeySelector, PodField, ResourceField,
};
pub use event::{Event, EventType, ObjectReference};
pub use expand::expand;
pub use extended_resource::{ExtendedResource, InvalidExtendedResource};
pub use host_port::{HostPort, PortConflict};
pub use id::{ContainerId, InvalidContainerId, InvalidPodUid, PodUid};
pub use image_name::{ImageName, InvalidImageName};
pub use name::{InvalidName, Name, validate_label, validate_subdomain};
pub use platform::Platform;
pub use pod::{HostNamespaces, Pod, PodKey, PodSpec};
pub use probe::{Grpc, Handler, HttpGet, Lifecycle, PortRef, Probe, ProbeKind, Probes, Scheme, TcpSocket};
pub use qos::{QosClass, qos_class};
pub use quantity::{InvalidQuantity, Quantity};
pub use restart::{RestartAction, RestartPolicy, RestartRule};
pub use security::{
    Capabilities, ContainerSecurity, FsGroupChangePolicy, PodSecurity, ProcMount, SeccompProfile,
    SupplementalGroupsPolicy,
};
pub use signal::{Signal, UnknownSignal};
pub use source::ManifestSource;
pub use status::{
    AllocatedDevice, AllocatedResource, ConditionStatus, ContainerState, ContainerStatus, PodCondition,
    PodConditionType, PodPhase, PodStatus, Running, Terminated, VolumeMountStatus, Waiting,
};
pub use volume::{
    DownwardFile, DownwardValue, EmptyDirMedium, HostPathType, KeyToPath, ProjectedVolume, Projection,
    Volume, VolumeSource,
};
