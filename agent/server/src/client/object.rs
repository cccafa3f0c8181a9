//! The parts of Kubernetes objects that a client shows. Whatever is missing is empty.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    )*};
}

mod node;

pub use self::node::{AllocatedDevice, AllocatedResource, Node, NodeAddress, NodeStatus};

objects! {
    /// `v1 Pod`.
    Pod {
        /// Who.
        metadata: Metadata,
        /// What was asked for.
        spec: PodSpec,
        /// What is seen.
        status: PodStatus,
        /// All of it, as it came.
        #[serde(skip)]
        object: Value,
    }

    /// `v1 ConfigMap`.
    ConfigMap {
        /// Which.
        metadata: Metadata,
        /// Text by key.
        data: BTreeMap<String, Value>,
        /// What is no text, by key.
        binary_data: BTreeMap<String, Value>,
        /// All of it, as it came.
        #[serde(skip)]
        object: Value,
    }

    /// `v1 Secret`, without its values.
    Secret {
        /// Which.
        metadata: Metadata,
        /// What it is for.
        r#type: String,
        /// Its keys.
        data: BTreeMap<String, Value>,
        /// All of it, as it came.
        #[serde(skip)]
        object: Value,
    }

    /// `metadata`.
    Metadata {
        /// Unique in its namespace.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Unique over time.
        uid: String,
        /// Another one with every change.
        resource_version: String,
        /// For selection.
        labels: BTreeMap<String, String>,
        /// For tools.
        annotations: BTreeMap<String, String>,
        /// When the node first saw it.
        creation_timestamp: Option<Timestamp>,
        /// Set while it is being removed.
        deletion_timestamp: Option<Timestamp>,
    }

    /// `spec`.
    PodSpec {
        /// Where it runs.
        node_name: String,
        /// In order of their start.
        init_containers: Vec<Container>,
        /// Side by side.
        containers: Vec<Container>,
        /// Added while the pod was there.
        ephemeral_containers: Vec<Container>,
        /// By name.
        volumes: Vec<Volume>,
        /// When containers are started again.
        restart_policy: String,
        /// Seconds to end in.
        termination_grace_period_seconds: Option<i64>,
        /// Selects nodes.
        node_selector: BTreeMap<String, String>,
        /// Importance.
        priority: Option<i64>,
        /// On the host's network.
        host_network: bool,
        /// Conditions that count for readiness.
        readiness_gates: Vec<Value>,
    }

    /// `spec.containers[]`.
    Container {
        /// Unique in the pod.
        name: String,
        /// The image's name.
        image: String,
        /// Replaces the entrypoint.
        command: Vec<String>,
        /// Replaces the command.
        args: Vec<String>,
        /// Declared.
        ports: Vec<Port>,
        /// Objects whose every key is a variable.
        env_from: Vec<EnvFromSource>,
        /// Variables.
        env: Vec<EnvVar>,
        /// Requests and limits.
        resources: Resources,
        /// What is mounted where.
        volume_mounts: Vec<VolumeMount>,
        /// `Always` for an init container that runs beside the others.
        restart_policy: Option<String>,
        /// Of an ephemeral container: whose processes it sees.
        target_container_name: String,
        /// It has a standard input.
        stdin: bool,
        /// It has a terminal.
        tty: bool,
    }

    /// `ports[]`.
    Port {
        /// What it may be called by.
        name: String,
        /// The number inside.
        container_port: u16,
        /// The number on the host.
        host_port: Option<u16>,
        /// `TCP`, `UDP`, `SCTP`.
        protocol: String,
    }

    /// `env[]`.
    EnvVar {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// Where else its value comes from.
        value_from: Option<EnvVarSource>,
    }

    /// `valueFrom`.
    EnvVarSource {
        /// Of the pod.
        field_ref: Option<FieldRef>,
        /// Of a container's resources.
        resource_field_ref: Option<ResourceFieldRef>,
        /// Of a ConfigMap.
        config_map_key_ref: Option<KeyRef>,
        /// Of a Secret.
        secret_key_ref: Option<KeyRef>,
        /// Of a file in a volume.
        file_key_ref: Option<FileKeyRef>,
    }

    /// `envFrom[]`.
    EnvFromSource {
        /// Before each name.
        prefix: String,
        /// A ConfigMap.
        config_map_ref: Option<ObjectRef>,
        /// A Secret.
        secret_ref: Option<ObjectRef>,
    }

    /// `fieldRef`.
    FieldRef {
        /// `v1`.
        api_version: String,
        /// Such as `metadata.name`.
        field_path: String,
    }

    /// `resourceFieldRef`.
    ResourceFieldRef {
        /// Such as `limits.memory`.
        resource: String,
        /// By what it is divided; 1 when `0`.
        divisor: String,
    }

    /// `configMapKeyRef` and `secretKeyRef`.
    KeyRef {
        /// The object.
        name: String,
        /// The key.
        key: String,
        /// May be missing.
        optional: bool,
    }

    /// `fileKeyRef`.
    FileKeyRef {
        /// The volume.
        volume_name: String,
        /// The file in it.
        path: String,
        /// The variable in the file.
        key: String,
        /// May be missing.
        optional: bool,
    }

    /// `configMapRef`, `secretRef`, and what a projected volume's sources name.
    ObjectRef {
        /// The object.
        name: String,
        /// May be missing.
        optional: bool,
    }

    /// `resources`.
    Resources {
        /// Not to be exceeded.
        limits: BTreeMap<String, Value>,
        /// Guaranteed.
        requests: BTreeMap<String, Value>,
    }

    /// `volumeMounts[]`.
    VolumeMount {
        /// The volume.
        name: String,
        /// Where.
        mount_path: String,
        /// Which part.
        sub_path: String,
        /// Not to be written.
        read_only: bool,
    }

    /// `spec.volumes[]`.
    Volume {
        /// Unique in the pod.
        name: String,
        /// From the host.
        host_path: Option<HostPath>,
        /// Of the pod.
        empty_dir: Option<EmptyDir>,
        /// An image.
        image: Option<ImageVolume>,
        /// Of a ConfigMap.
        config_map: Option<ObjectRef>,
        /// Of a Secret.
        secret: Option<SecretVolume>,
        /// Of the pod's own fields.
        #[serde(rename = "downwardAPI")]
        downward_api: Option<DownwardApi>,
        /// Of several of these.
        projected: Option<Projected>,
    }

    /// `secret`.
    SecretVolume {
        /// The object.
        secret_name: String,
        /// May be missing.
        optional: bool,
    }

    /// `downwardAPI`.
    DownwardApi {
        /// Its files.
        items: Vec<DownwardFile>,
    }

    /// `downwardAPI.items[]`.
    DownwardFile {
        /// The file in the volume.
        path: String,
        /// Of the pod.
        field_ref: Option<FieldRef>,
        /// Of a container's resources.
        resource_field_ref: Option<ResourceFieldRef>,
    }

    /// `projected`.
    Projected {
        /// Later over earlier.
        sources: Vec<ProjectedSource>,
    }

    /// `projected.sources[]`.
    ProjectedSource {
        /// A ConfigMap.
        config_map: Option<ObjectRef>,
        /// A Secret.
        secret: Option<ObjectRef>,
        /// The pod's own fields.
        #[serde(rename = "downwardAPI")]
        downward_api: Option<DownwardApi>,
    }

    /// `hostPath`.
    HostPath {
        /// On the host.
        path: String,
        /// What must be there.
        r#type: String,
    }

    /// `emptyDir`.
    EmptyDir {
        /// `Memory`, or empty.
        medium: String,
        /// The most it holds.
        size_limit: Option<String>,
    }

    /// `image` of a volume.
    ImageVolume {
        /// Its name.
        reference: String,
        /// When it is pulled.
        pull_policy: String,
    }

    /// `podIPs[]`.
    PodIp {
        /// One of its addresses.
        ip: String,
    }

    /// `status`.
    PodStatus {
        /// The short form.
        phase: String,
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
        /// Its address.
        #[serde(rename = "podIP")]
        pod_ip: String,
        /// All of them.
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
        /// The node's address.
        #[serde(rename = "hostIP")]
        host_ip: String,
        /// When the node took it up.
        start_time: Option<Timestamp>,
        /// In Kubernetes' order.
        conditions: Vec<Condition>,
        /// In the specification's order.
        init_container_statuses: Vec<ContainerStatus>,
        /// In the specification's order.
        container_statuses: Vec<ContainerStatus>,
        /// In the specification's order.
        ephemeral_container_statuses: Vec<ContainerStatus>,
        /// `Guaranteed`, `Burstable`, `BestEffort`.
        qos_class: String,
        /// The node it was nominated for.
        nominated_node_name: String,
    }

    /// `status.conditions[]`.
    Condition {
        /// Which.
        r#type: String,
        /// `True`, `False`, `Unknown`.
        status: String,
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
    }

    /// `containerStatuses[]`.
    ContainerStatus {
        /// The container.
        name: String,
        /// Now.
        state: ContainerState,
        /// The run before.
        last_state: ContainerState,
        /// Serves requests.
        ready: bool,
        /// Has passed its start.
        started: Option<bool>,
        /// Started again so often.
        restart_count: u32,
        /// The image's name.
        image: String,
        /// The image's digest.
        #[serde(rename = "imageID")]
        image_id: String,
        /// The container.
        #[serde(rename = "containerID")]
        container_id: String,
        /// Its devices.
        allocated_resources_status: Vec<AllocatedResource>,
    }

    /// `state`: one of three, or none of them.
    ContainerState {
        /// To be started.
        waiting: Option<Waiting>,
        /// Runs.
        running: Option<Running>,
        /// Ended.
        terminated: Option<Terminated>,
    }

    /// `state.waiting`.
    Waiting {
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
    }

    /// `state.running`.
    Running {
        /// Since.
        started_at: Option<Timestamp>,
    }

    /// `state.terminated`.
    Terminated {
        /// 0 to 255.
        exit_code: i32,
        /// The signal that ended it.
        signal: i32,
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
        /// From.
        started_at: Option<Timestamp>,
        /// To.
        finished_at: Option<Timestamp>,
    }

    /// `v1 Event`.
    Event {
        /// Who.
        metadata: Metadata,
        /// `Normal`, `Warning`.
        r#type: String,
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
        /// What it is about.
        involved_object: InvolvedObject,
        /// First.
        first_timestamp: Option<Timestamp>,
        /// Last.
        last_timestamp: Option<Timestamp>,
        /// How often.
        count: u32,
        /// Who says so.
        source: EventSource,
        /// All of it, as it came.
        #[serde(skip)]
        object: Value,
    }

    /// `involvedObject`.
    InvolvedObject {
        /// `Pod`, `Node`.
        kind: String,
        /// Its name.
        name: String,
        /// The part of the object.
        field_path: String,
    }

    /// `source`.
    EventSource {
        /// The program.
        component: String,
        /// The node it runs on.
        host: String,
    }
}

/// One change of a watch.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchEvent<T> {
    /// What happened.
    pub kind: WatchEventType,
    /// The object as it is, or as it was last.
    pub object: T,
}

/// What a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WatchEventType {
    /// It is there, for the first time on this watch.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// What the API has lists and watches of.
pub trait Object: DeserializeOwned + Send + 'static {
    /// Its parts.
    fn metadata(&self) -> &Metadata;

    /// All of it, as it came.
    fn object(&self) -> &Value;

    /// Made of all of it.
    ///
    /// # Errors
    /// When a part is not of the type it has.
    fn from_object(object: Value) -> Result<Self, serde_json::Error>;
}

macro_rules! object {
    ($name:ident) => {
        impl Object for $name {
            fn metadata(&self) -> &Metadata {
                &self.metadata
            }

            fn object(&self) -> &Value {
                &self.object
            }

            fn from_object(object: Value) -> Result<Self, serde_json::Error> {
                Ok(Self { object: object.clone(), ..Self::deserialize(object)? })
            }
        }
    };
}

object!(Pod);
object!(ConfigMap);
object!(Secret);
object!(Event);
object!(Node);

// === impl WatchEvent ===

impl<T: Object> WatchEvent<T> {
    pub(super) fn from_object(mut event: Value) -> Result<Self, serde_json::Error> {
        let kind = WatchEventType::deserialize(event["type"].take())?;
        Ok(Self { kind, object: T::from_object(event["object"].take())? })
    }
}
