//! The plugin's configuration: which devices are offered, and how.
//!
//! ```text
//! file -> file (what may stand in it) -> decode (checked, everything that is wrong at once) -> Config
//! ```

mod decode;
mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use coracle_document::Diagnostic;

use crate::glob::Glob;

/// XIDs that a program brings about and not a GPU: NVIDIA's device plugin ignores the same.
pub(crate) const APPLICATION_XIDS: &[u64] = &[13, 31, 43, 45, 68, 109];

/// The most shares a device can be offered in.
pub(crate) const MOST_SHARES: u32 = 4096;

/// What the plugin offers. Without a file: every GPU there is, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Devices by their paths.
    pub(crate) resources: Vec<GenericResource>,
    /// GPUs of NVIDIA.
    pub(crate) nvidia: Nvidia,
    /// GPUs of AMD, as `amd.com/gpu`.
    pub(crate) amd: RenderNodes,
    /// GPUs of Intel, as `gpu.intel.com/i915` and `gpu.intel.com/xe`.
    pub(crate) intel: RenderNodes,
}

/// A resource whose devices are named by paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GenericResource {
    /// Such as `coracle.dev/fuse`.
    pub(crate) name: String,
    /// In how many shares each device is offered.
    pub(crate) shares: u32,
    /// What is one device, or one for each match.
    pub(crate) groups: Vec<Group>,
}

/// Paths that belong to one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The first has the device's name, and says whether it is there.
    pub(crate) first: GroupPath,
    /// The others.
    pub(crate) rest: Vec<GroupPath>,
}

/// One node of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupPath {
    /// On the host.
    pub(crate) glob: Glob,
    /// In the container; there it stands at its own path where absent. What wildcards matched goes where wildcards stand.
    pub(crate) container_path: Option<String>,
    /// A subset of `rwm`.
    pub(crate) permissions: String,
    /// The device is whole without it.
    pub(crate) optional: bool,
}

/// How GPUs of NVIDIA are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nvidia {
    /// Whether at all.
    pub(crate) enabled: bool,
    /// What becomes of GPUs that are partitioned.
    pub(crate) mig: MigStrategy,
    /// In how many shares.
    pub(crate) sharing: TimeSlicing,
    /// How the container gets it.
    pub(crate) delivery: Delivery,
    /// XIDs after which a GPU is as good as before.
    pub(crate) ignored_xids: BTreeSet<u64>,
    /// Whether device nodes that the driver did not make are made, and modules it needs are loaded.
    pub(crate) prepare: bool,
}

/// NVIDIA's `migStrategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MigStrategy {
    /// GPUs are offered whole.
    None,
    /// Partitions are offered as `nvidia.com/gpu`; they must be alike, on every GPU.
    Single,
    /// Each kind of partition is a resource of its own, `nvidia.com/mig-1g.10gb`.
    Mixed,
}

/// NVIDIA's `sharing.timeSlicing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeSlicing {
    /// Whether shares are offered as `<resource>.shared`.
    pub(crate) rename_by_default: bool,
    /// Whether a container that asks for several shares is refused: it would not get more of the GPU.
    pub(crate) fail_requests_greater_than_one: bool,
    /// In how many shares the devices of a resource are offered.
    pub(crate) replicas: Vec<(String, u32)>,
}

/// How a container gets a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// By a CDI name, for a kubelet since 1.31 and a runtime that knows CDI.
    Cdi,
    /// By device nodes, mounts and variables in the answer, for any.
    DeviceSpecs,
}

/// How render nodes are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RenderNodes {
    /// Whether at all.
    pub(crate) enabled: bool,
    /// In how many shares each.
    pub(crate) shares: u32,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        let render_nodes = RenderNodes { enabled: true, shares: 1 };
        Self { resources: Vec::new(), nvidia: Nvidia::default(), amd: render_nodes, intel: render_nodes }
    }
}

impl Config {
    /// Reads a configuration in YAML or JSON; `source` names it in what is wrong.
    ///
    /// # Errors
    /// Everything that is wrong, with line and column.
    pub fn decode(bytes: &[u8], source: &str) -> Result<Self, Vec<Diagnostic>> {
        decode::decode(bytes, source)
    }
}

// === impl Nvidia ===

impl Default for Nvidia {
    fn default() -> Self {
        Self {
            enabled: true,
            mig: MigStrategy::None,
            sharing: TimeSlicing::default(),
            delivery: Delivery::Cdi,
            ignored_xids: APPLICATION_XIDS.iter().copied().collect(),
            prepare: true,
        }
    }
}
