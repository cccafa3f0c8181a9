//! A pod's volumes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{ConfigKind, ImagePullPolicy, Name, PodField, Quantity, ResourceField};

/// One entry of `spec.volumes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Unique within the pod.
    pub name: Name,
    /// Where the content comes from.
    pub source: VolumeSource,
}

/// The kinds of volume the node serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A path of the host.
    HostPath {
        /// Absolute, without `..`.
        path: PathBuf,
        /// What must be there, or is made.
        kind: HostPathType,
    },
    /// A directory that lives as long as the pod.
    EmptyDir {
        /// What holds it.
        medium: EmptyDirMedium,
        /// The most it may hold, in bytes.
        size_limit: Option<Quantity>,
    },
    /// Files that the node writes: `configMap`, `secret`, `downwardAPI` and `projected`.
    Projected(ProjectedVolume),
    /// What an image holds, read-only.
    Image {
        /// The image's name, as written.
        reference: String,
        /// When it is pulled.
        pull_policy: ImagePullPolicy,
    },
}

/// A read-only directory of files made of configuration. `configMap`, `secret` and `downwardAPI` have one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectedVolume {
    /// The mode of files that have none of their own; 0644 by default.
    pub default_mode: u32,
    /// Of two files of one path the later counts.
    pub sources: Vec<Projection>,
}

/// One source of a projected volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Projection {
    /// A file for every key of a ConfigMap or Secret, or for those that are named.
    Object {
        /// Which kind.
        kind: ConfigKind,
        /// Its name, in the pod's namespace.
        name: Name,
        /// Empty for every key. A key that is named must be there, unless the source is optional.
        items: Vec<KeyToPath>,
        /// Nothing is written when the object is missing.
        optional: bool,
    },
    /// Files that tell of the pod itself.
    Downward(Vec<DownwardFile>),
}

/// One entry of `items`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyToPath {
    /// The key.
    pub key: String,
    /// Path of the file in the volume: relative, without `..`.
    pub path: String,
    /// The file's mode, instead of the volume's default.
    pub mode: Option<u32>,
}

/// One file of a downward API volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownwardFile {
    /// Path of the file in the volume: relative, without `..`.
    pub path: String,
    /// What it holds.
    pub value: DownwardValue,
    /// The file's mode, instead of the volume's default.
    pub mode: Option<u32>,
}

/// What a file of a downward API volume holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownwardValue {
    /// `fieldRef`.
    Field(PodField),
    /// `resourceFieldRef`; its container is named.
    Resource(ResourceField),
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPathType {
    /// `""`: no check.
    #[default]
    Unset,
    /// An empty directory, mode 0755, is made if nothing is there.
    DirectoryOrCreate,
    /// A directory must be there.
    Directory,
    /// An empty file, mode 0644, is made if nothing is there; its directory must be there.
    FileOrCreate,
    /// A regular file must be there.
    File,
    /// A unix socket must be there.
    Socket,
    /// A character device must be there.
    CharDevice,
    /// A block device must be there.
    BlockDevice,
}

/// `emptyDir.medium`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EmptyDirMedium {
    /// The disk of the state directory.
    #[default]
    Default,
    /// A tmpfs of its own, counted as memory of the pod.
    Memory,
}

// === impl HostPathType ===

impl HostPathType {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::DirectoryOrCreate => "DirectoryOrCreate",
            Self::Directory => "Directory",
            Self::FileOrCreate => "FileOrCreate",
            Self::File => "File",
            Self::Socket => "Socket",
            Self::CharDevice => "CharDevice",
            Self::BlockDevice => "BlockDevice",
        }
    }
}
