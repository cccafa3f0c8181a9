//! The pod workers' ports, made of the runtime, the image store, the volumes and the run directory.

mod environment;
mod event;
mod failure;
mod hook;
mod image;
mod probe;
mod runtime;
mod volume;

use std::path::PathBuf;
use std::sync::Arc;

use coracle_events::EventLog;
use coracle_image::Store;
use coracle_model::{ContainerId, PodUid};
use coracle_pod::RecordDir;
use coracle_pod::ports::{Ports, SystemClock};
use coracle_probe::Prober;
use coracle_sandbox::Runtime;
use coracle_volume::Volumes;
use tokio::sync::mpsc;

use self::probe::ProbedNode;

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
    records: RecordDir,
    events: EventPort,
    #[expect(dead_code, reason = "asked for by the pods' workers once they know probes")]
    probes: ProbePort,
    #[expect(dead_code, reason = "asked for by the pods' workers once they know hooks")]
    hooks: HookPort,
}

/// The directories of pods: `<root>/pods/<uid>`.
#[derive(Clone, Debug)]
pub(crate) struct PodDirs {
    root: PathBuf,
}

// === impl NodePorts ===

impl NodePorts {
    /// `changes` is told of pods whose probes have found something new.
    pub(crate) fn new(
        runtime: Runtime,
        store: Arc<Store>,
        volumes: Arc<Volumes>,
        dirs: PodDirs,
        records: RecordDir,
        events: EventLog,
        changes: mpsc::UnboundedSender<PodUid>,
    ) -> anyhow::Result<Self> {
        let events = EventPort::new(events);
        let prober = Arc::new(Prober::new(ProbedNode::new(runtime.clone(), events.clone(), changes))?);
        Ok(Self {
            runtime: RuntimePort::new(
                runtime.clone(),
                Arc::clone(&store),
                Arc::clone(&volumes),
                dirs.clone(),
            ),
            images: ImagePort::new(store),
            volumes: VolumePort::new(volumes, dirs, runtime),
            records,
            events,
            probes: ProbePort::new(Arc::clone(&prober)),
            hooks: HookPort::new(prober),
        })
    }
}

impl Ports for NodePorts {
    type Runtime = RuntimePort;
    type Images = ImagePort;
    type Volumes = VolumePort;
    type Records = RecordDir;
    type Events = EventPort;
    type Clock = SystemClock;

    fn runtime(&self) -> &RuntimePort {
        &self.runtime
    }

    fn images(&self) -> &ImagePort {
        &self.images
    }

    fn volumes(&self) -> &VolumePort {
        &self.volumes
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

    /// Where the writable layers of a pod's containers are.
    pub(crate) fn containers(&self, uid: &PodUid) -> PathBuf {
        self.pod(uid).join("containers")
    }

    /// Where a container's writable layer is.
    pub(crate) fn container(&self, uid: &PodUid, id: ContainerId) -> PathBuf {
        self.containers(uid).join(id.to_string())
    }
}
