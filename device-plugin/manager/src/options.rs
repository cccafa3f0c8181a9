//! What a manager is told when it is made.

use std::path::PathBuf;
use std::time::Duration;

use coracle_device_api::{deviceplugin, pluginregistration};

use crate::numa::NumaNodes;

/// What a manager is told when it is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of plugins' sockets, where the node's own, `kubelet.sock`, is listened on.
    pub plugin_dir: PathBuf,
    /// The directory in which plugins wait to be found, if any is looked at.
    pub registry_dir: Option<PathBuf>,
    /// The file in which it is written who has what. It need not outlast the machine: nothing of a pod does.
    pub checkpoint: PathBuf,
    /// What is done for the sake of topology.
    pub policy: TopologyPolicy,
    /// For whom it is done.
    pub scope: TopologyScope,
    /// The machine's NUMA nodes.
    pub numa_nodes: NumaNodes,
    /// How long plugins may take.
    pub deadlines: Deadlines,
}

/// How long plugins may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// To listen on the socket they have registered.
    pub connect: Duration,
    /// To say what they want to be asked, and who they are.
    pub info: Duration,
    /// To name their devices for the first time. Until then what an earlier plugin named is believed.
    pub list: Duration,
    /// To say which devices they would rather give.
    pub prefer: Duration,
    /// To make devices available.
    pub allocate: Duration,
    /// To prepare devices for a container's start.
    pub pre_start: Duration,
    /// To come back before their devices are forgotten.
    pub grace: Duration,
}

/// `topologyManagerPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopologyPolicy {
    /// Topology does not count.
    #[default]
    None,
    /// Devices near to each other are given where there are such.
    BestEffort,
    /// A pod that could have such devices, were they not others', is refused.
    Restricted,
    /// A pod that cannot have all devices of one NUMA node is refused.
    SingleNumaNode,
}

/// `topologyManagerScope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopologyScope {
    /// The devices of a container are to be near to each other.
    #[default]
    Container,
    /// Those of all containers of a pod.
    Pod,
}

// === impl Options ===

impl Options {
    /// The kubelet's directories, no topology, its deadlines, and this machine's NUMA nodes.
    pub fn new(checkpoint: impl Into<PathBuf>) -> Self {
        Self {
            plugin_dir: deviceplugin::PLUGIN_DIR.into(),
            registry_dir: Some(pluginregistration::REGISTRY_DIR.into()),
            checkpoint: checkpoint.into(),
            policy: TopologyPolicy::default(),
            scope: TopologyScope::default(),
            numa_nodes: NumaNodes::of_this_machine(),
            deadlines: Deadlines::default(),
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(10),
            info: seconds(10),
            list: seconds(30),
            prefer: seconds(10),
            allocate: seconds(60),
            pre_start: seconds(30),
            grace: seconds(300),
        }
    }
}
