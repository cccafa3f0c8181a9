//! A pod's volumes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Name, Quantity};

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
