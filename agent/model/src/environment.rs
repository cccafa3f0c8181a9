//! A container's environment, and the fields and resources that variables and files are made of.

use serde::{Deserialize, Serialize};

use crate::{Name, Quantity};

/// One entry of `env`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Any printable ASCII text but `=` (Kubernetes' relaxed names).
    pub name: String,
    /// Where the value comes from.
    pub value: EnvValue,
}

/// `value` or `valueFrom`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    /// May hold `$(VAR)` references, not yet expanded.
    Literal(String),
    /// `fieldRef`. Never one of [`PodField::Labels`] and [`PodField::Annotations`].
    Field(PodField),
    /// `resourceFieldRef`.
    Resource(ResourceField),
    /// `configMapKeyRef`.
    ConfigMapKey(KeySelector),
    /// `secretKeyRef`.
    SecretKey(KeySelector),
    /// `fileKeyRef`.
    FileKey(FileKeySelector),
}

/// One key of a ConfigMap or Secret of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySelector {
    /// The object's name.
    pub name: Name,
    /// The key in its data.
    pub key: String,
    /// The variable is left out when object or key is missing.
    pub optional: bool,
}

/// `fileKeyRef`: one variable of a file of `NAME=value` lines in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileKeySelector {
    /// The volume, an emptyDir.
    pub volume: Name,
    /// Relative, without `..`.
    pub path: String,
    /// The variable's name in the file.
    pub key: String,
    /// The variable is left out when file or key is missing.
    pub optional: bool,
}

/// One entry of `envFrom`: every key of an object is a variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFrom {
    /// Put before each name.
    pub prefix: String,
    /// Which kind of object.
    pub kind: ConfigKind,
    /// The object's name, in the pod's namespace.
    pub name: Name,
    /// Nothing is set when the object is missing.
    pub optional: bool,
}

/// The two kinds of object that hold configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConfigKind {
    /// `v1 ConfigMap`.
    ConfigMap,
    /// `v1 Secret`.
    Secret,
}

/// `fieldRef.fieldPath`: what a pod can be told of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodField {
    /// `metadata.name`.
    Name,
    /// `metadata.namespace`.
    Namespace,
    /// `metadata.uid`.
    Uid,
    /// `metadata.labels['key']`; empty when there is none.
    Label(String),
    /// `metadata.annotations['key']`; empty when there is none.
    Annotation(String),
    /// `metadata.labels`: all of them, a line each. Files only.
    Labels,
    /// `metadata.annotations`: all of them, a line each. Files only.
    Annotations,
    /// `spec.nodeName`. Variables only.
    NodeName,
    /// `spec.serviceAccountName`. Variables only.
    ServiceAccountName,
    /// `status.hostIP`. Variables only.
    HostIp,
    /// `status.hostIPs`. Variables only.
    HostIps,
    /// `status.podIP`. Variables only.
    PodIp,
    /// `status.podIPs`. Variables only.
    PodIps,
}

/// `resourceFieldRef`: a request or limit of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceField {
    /// The container; the one the variable belongs to when absent. A file always names one.
    pub container: Option<Name>,
    /// Whether its limit is meant, not its request.
    pub limit: bool,
    /// `cpu`, `memory`, `ephemeral-storage` or `hugepages-<size>`. A limit that is not set is the node's allocatable.
    pub resource: String,
    /// The value is divided by this and rounded up. Never zero; 1 by default.
    pub divisor: Quantity,
}

// === impl ConfigKind ===

impl ConfigKind {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}
