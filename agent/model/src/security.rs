//! Security contexts of pods and containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `spec.securityContext`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSecurity {
    /// User id of containers that set none.
    pub run_as_user: Option<u32>,
    /// Group id of containers that set none.
    pub run_as_group: Option<u32>,
    /// Refuse containers that would run as user 0.
    pub run_as_non_root: Option<bool>,
    /// Further groups of every container.
    pub supplemental_groups: Vec<u32>,
    /// Whether the groups that the image's /etc/group gives the user count, too.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// `fsGroup`: the group that owns the pod's own volumes, and a further group of every container.
    pub fs_group: Option<u32>,
    /// `fsGroupChangePolicy`.
    pub fs_group_change_policy: FsGroupChangePolicy,
    /// Profile of containers that set none.
    pub seccomp: Option<SeccompProfile>,
    /// `sysctls`: kernel settings of the pod's namespaces, by their names with dots.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
}

/// `supplementalGroupsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// Those of the image's /etc/group and those of the specification.
    #[default]
    Merge,
    /// Those of the specification only.
    Strict,
}

/// `fsGroupChangePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsGroupChangePolicy {
    /// Ownership and modes are set whenever a volume is made ready.
    #[default]
    Always,
    /// They are set only when the volume's root does not have them already.
    OnRootMismatch,
}

/// `containers[].securityContext`. What is `None` falls back to the pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSecurity {
    /// User id.
    pub run_as_user: Option<u32>,
    /// Group id.
    pub run_as_group: Option<u32>,
    /// Refuse to run as user 0.
    pub run_as_non_root: Option<bool>,
    /// All capabilities, all devices, no seccomp, no masked paths.
    pub privileged: bool,
    /// Changes to the default set.
    pub capabilities: Capabilities,
    /// The root file system is mounted read-only.
    pub read_only_root_filesystem: bool,
    /// `Some(false)` sets no_new_privs.
    pub allow_privilege_escalation: Option<bool>,
    /// System call filter.
    pub seccomp: Option<SeccompProfile>,
    /// How /proc is mounted.
    pub proc_mount: ProcMount,
}

/// `capabilities`: names in upper case without `CAP_`, or `ALL`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Added to the default set.
    pub add: Vec<String>,
    /// Taken from the default set.
    pub drop: Vec<String>,
}

/// `seccompProfile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    /// The runtime's default profile.
    RuntimeDefault,
    /// No filter.
    Unconfined,
    /// An OCI profile in JSON, relative to the node's seccomp directory, without `..`.
    Localhost(PathBuf),
}

/// `procMount`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcMount {
    /// Sensitive paths are masked or read-only.
    #[default]
    Default,
    /// Nothing is masked.
    Unmasked,
}
