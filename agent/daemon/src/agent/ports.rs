//! The pod workers' ports, made of the runtime, the image store, the volumes and the run directory.

mod configuration;
mod device;
mod event;
mod failure;
mod hook;
mod image;
mod naming;
mod probe;
mod runtime;
mod volume;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_controller::{ConfigStore, Configs};
use coracle_events::EventLog;
use coracle_image::Store;
use coracle_model::{ContainerId, Pod, PodUid};
use coracle_pod::RecordDir;
use coracle_pod::ports::{Ports, Refusal, SystemClock};
use coracle_probe::Prober;
use coracle_sandbox::Runtime;
use coracle_volume::Volumes;
use tokio::sync::{mpsc, watch};

use self::naming::Naming;
use self::probe::ProbedNode;

use super::facts::NodeFacts;
use super::images::NodeImages;
use super::network::PodNetwork;
use crate::config::Config;

pub(crate) use device::DevicePort;
pub(crate) use event::EventPort;
pub(crate) use hook::HookPort;
pub(crate) use image::ImagePort;
pub(crate) use probe::ProbePort;
pub(crate) use runtime::RuntimePort;
pub(crate) use volume::VolumePort;

/// What a node's pods are run with.
pub(crate) struct NodePorts {
    runtime: RuntimePort,
    images: ImagePort,
    volumes: VolumePort,
    devices: DevicePort,
    records: RecordDir,
    events: EventPort,
    probes: ProbePort,
    hooks: HookPort,
    config: watch::Receiver<Arc<Config>>,
    node: NodeFacts,
}

/// What the ports are made of.
pub(crate) struct Parts {
    /// The container runtime.
    pub(crate) runtime: Runtime,
    /// The pods' network.
    pub(crate) network: PodNetwork,
    /// The store of images.
    pub(crate) store: Arc<Store>,
    /// What brings images into it.
    pub(crate) images: NodeImages,
    /// The volumes.
    pub(crate) volumes: Arc<Volumes>,
    /// The directories of pods.
    pub(crate) dirs: PodDirs,
    /// Devices.
    pub(crate) devices: DevicePort,
    /// The pods' records.
    pub(crate) records: RecordDir,
    /// The node's events.
    pub(crate) events: EventLog,
    /// What variables and files are made of.
    pub(crate) configuration: Configuration,
    /// What the node goes by.
    pub(crate) config: watch::Receiver<Arc<Config>>,
}

/// What pods' variables and files are made of.
#[derive(Clone)]
pub(crate) struct Configuration {
    /// The node's ConfigMaps and Secrets.
    pub(crate) configs: ConfigStore,
    /// The node itself.
    pub(crate) node: NodeFacts,
}

/// The directories of pods: `<root>/pods/<uid>`.
#[derive(Clone, Debug)]
pub(crate) struct PodDirs {
    root: PathBuf,
}

// === impl Configuration ===

impl Configuration {
    /// The ConfigMaps and Secrets there are. One that is made of none waits for no manifests.
    pub(crate) async fn of(&self, pod: &Pod) -> Arc<Configs> {
        match pod.configs().is_empty() {
            true => Arc::default(),
            false => self.configs.current().await,
        }
    }
}

// === impl NodePorts ===

impl NodePorts {
    /// `changes` are told of the pods whose probes have found something new.
    pub(crate) fn new(parts: Parts, changes: mpsc::UnboundedSender<PodUid>) -> anyhow::Result<Self> {
        let Parts {
            runtime,
            network,
            store,
            images,
            volumes,
            dirs,
            devices,
            records,
            events,
            configuration,
            config,
        } = parts;
        let (events, node) = (EventPort::new(events), configuration.node.clone());
        let prober = Arc::new(Prober::new(ProbedNode::new(
            runtime.clone(),
            network.clone(),
            node.clone(),
            events.clone(),
            changes,
        ))?);
        Ok(Self {
            runtime: RuntimePort::new(
                runtime.clone(),
                network,
                Arc::clone(&store),
                Arc::clone(&volumes),
                dirs.clone(),
                configuration.clone(),
                Naming::new(config.clone(), dirs.clone(), events.clone()),
            ),
            images: ImagePort::new(images),
            volumes: VolumePort::new(volumes, store, dirs, runtime, configuration, events.clone()),
            devices,
            records,
            events,
            probes: ProbePort::new(Arc::clone(&prober)),
            hooks: HookPort::new(prober),
            config,
            node,
        })
    }
}

impl Ports for NodePorts {
    type Runtime = RuntimePort;
    type Images = ImagePort;
    type Volumes = VolumePort;
    type Devices = DevicePort;
    type Probes = ProbePort;
    type Hooks = HookPort;
    type Records = RecordDir;
    type Events = EventPort;
    type Clock = SystemClock;

    fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        let forbidden = |message| Refusal { reason: "SysctlForbidden".into(), message };
        self.config.borrow().sysctls.check(pod).map_err(forbidden)
    }

    fn node_addresses(&self) -> Arc<[IpAddr]> {
        self.node.addresses()
    }

    fn runtime(&self) -> &RuntimePort {
        &self.runtime
    }

    fn images(&self) -> &ImagePort {
        &self.images
    }

    fn volumes(&self) -> &VolumePort {
        &self.volumes
    }

    fn devices(&self) -> &DevicePort {
        &self.devices
    }

    fn probes(&self) -> &ProbePort {
        &self.probes
    }

    fn hooks(&self) -> &HookPort {
        &self.hooks
    }

    fn records(&self) -> &RecordDir {
        &self.records
    }

    fn events(&self) -> &EventPort {
        &self.events
    }

    fn clock(&self) -> &SystemClock {
        &SystemClock
    }
}

// === impl PodDirs ===

impl PodDirs {
    /// The directories beneath the node's root directory.
    pub(crate) fn new(root_dir: &std::path::Path) -> Self {
        Self { root: root_dir.join("pods") }
    }

    /// Where they all are.
    pub(crate) fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// A pod's.
    pub(crate) fn pod(&self, uid: &PodUid) -> PathBuf {
        self.root.join(uid.as_str())
    }

    /// Where the files are by which a pod resolves names.
    pub(crate) fn names(&self, uid: &PodUid) -> PathBuf {
        self.pod(uid).join("etc")
    }

    /// Where the writable layers of a pod's containers are.
    pub(crate) fn containers(&self, uid: &PodUid) -> PathBuf {
        self.pod(uid).join("containers")
    }

    /// Where a container's writable layer is.
    pub(crate) fn container(&self, uid: &PodUid, id: ContainerId) -> PathBuf {
        self.containers(uid).join(id.to_string())
    }
}
