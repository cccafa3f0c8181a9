//! What devices bring into a container.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ExtendedResource, Name};

/// Which devices a pod's containers were given: by container and resource, the identifiers plugins know them by.
pub type PodDevices = BTreeMap<Name, BTreeMap<ExtendedResource, BTreeSet<String>>>;

/// Whether a device works, as its plugin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceHealth {
    /// It does.
    Healthy,
    /// It does not, or its plugin does not name it any more.
    Unhealthy,
    /// Its plugin is not there.
    Unknown,
}

/// What is added to a container beside what its specification says: what a device plugin answers to `Allocate`, and CDI's
/// `containerEdits`, in one form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerEdits {
    /// Variables that the specification's of the same name win over, and the image's do not, as under the kubelet: whoever
    /// puts a container's environment together counts them in.
    pub default_env: Vec<(String, String)>,
    /// Variables in place of the specification's and the image's of the same name, as CDI has it. Of several the last counts.
    pub env: Vec<(String, String)>,
    /// Device nodes, and what may be done with them.
    pub device_nodes: Vec<DeviceNode>,
    /// Files and directories of the host.
    pub mounts: Vec<EditMount>,
    /// Programs of the host to execute at points of the container's life.
    pub hooks: Vec<EditHook>,
    /// Further groups of the container's first process and of what is executed in it.
    pub additional_gids: Vec<u32>,
    /// Network interfaces of the host that become the pod's.
    pub net_devices: Vec<NetDevice>,
    /// Annotations of the OCI runtime specification.
    pub annotations: BTreeMap<String, String>,
}

/// A device node in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute path in the container.
    pub path: String,
    /// Absolute path on the host; what `path` says, if empty. A link is followed; of a directory every node in it is meant.
    pub host_path: String,
    /// What kind of node; what the host's is, where absent.
    pub kind: Option<DeviceNumbers>,
    /// Whether the container may read, write and make it: a subset of `rwm` (the cgroup's device filter).
    pub permissions: String,
    /// Mode; the host's node's where absent, as are owner and group.
    pub file_mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Whether an owner or group that is absent is the container's user's, if that is not root, before it is the host's
    /// node's: as CDI has it.
    #[serde(default)]
    pub is_users: bool,
}

/// What kind of node, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNumbers {
    /// OCI's letter: `b` block, `c` or `u` character, `p` fifo.
    pub letter: char,
    /// Major and minor number; those of the host's node, which must be of that kind, where absent.
    pub numbers: Option<(u32, u32)>,
}

/// A file or directory of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditMount {
    /// Absolute path on the host; of a file system that is no bind mount, what it is made of.
    pub host_path: String,
    /// Absolute path in the container.
    pub container_path: String,
    /// File system type; a bind mount where empty, `none` or `bind`.
    pub fs_type: String,
    /// Options of mount(8), such as `ro`, `nosuid` and `rbind`.
    pub options: Vec<String>,
}

/// When a hook is executed (OCI runtime specification, POSIX-platform hooks).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookPoint {
    /// Before the container is created, in the host's namespaces; also OCI's deprecated `prestart`.
    CreateRuntime,
    /// In the container's namespaces, before its root is entered.
    CreateContainer,
    /// In the container, before its program is executed.
    StartContainer,
    /// On the host, once the program was executed.
    Poststart,
    /// On the host, once the container is gone.
    Poststop,
}

/// A program to execute at a point of a container's life, with its state (OCI) on standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditHook {
    /// When.
    pub point: HookPoint,
    /// Absolute path.
    pub path: String,
    /// With the program's own name first; empty: the path alone.
    pub args: Vec<String>,
    /// `NAME=value`: all that it gets.
    pub env: Vec<String>,
    /// The longest it may take.
    pub timeout: Option<Duration>,
}

/// A network interface of the host that becomes the pod's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDevice {
    /// Its name on the host.
    pub host_name: String,
    /// Its name in the pod.
    pub name: String,
}

// === impl ContainerEdits ===

impl ContainerEdits {
    /// Adds further edits, which come after these.
    pub fn append(&mut self, more: Self) {
        let Self { env, default_env, device_nodes, mounts, hooks, additional_gids, net_devices, annotations } =
            more;
        self.default_env.extend(default_env);
        self.env.extend(env);
        self.device_nodes.extend(device_nodes);
        self.mounts.extend(mounts);
        self.hooks.extend(hooks);
        self.additional_gids.extend(additional_gids);
        self.net_devices.extend(net_devices);
        self.annotations.extend(annotations);
    }
}

// === impl DeviceHealth ===

impl DeviceHealth {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Unhealthy => "Unhealthy",
            Self::Unknown => "Unknown",
        }
    }
}
