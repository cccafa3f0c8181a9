//! The device manager of this node, and what is asked of it.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use coracle_device_manager::{DeviceManager, Options, TopologyPolicy};
use coracle_model::{ExtendedResource, Pod, PodDevices, PodUid};
use coracle_pod::{Found, Pods, WorkerPhase};

use super::ports::NodePorts;
use crate::config::Config;

/// The device manager, or why there is none. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeDevices {
    manager: Result<Arc<DeviceManager>, Arc<str>>,
    /// The pods that are served at the socket of pod resources, once there are any.
    pods: Arc<OnceLock<Pods<NodePorts>>>,
}

// === impl NodeDevices ===

impl NodeDevices {
    /// No devices: for a node that has its pods for a while only, beside another on the same host.
    pub(crate) fn none() -> Self {
        let why = "this node gives no devices to pods: run them by manifests, with `coracle agent`";
        Self { manager: Err(why.into()), pods: Arc::default() }
    }

    /// Listens to device plugins. A node on which that cannot be runs all pods that ask for no devices.
    pub(crate) async fn open(config: &Config, known: &[Found]) -> Self {
        let pods = Arc::default();
        let manager = open(config, known, Arc::clone(&pods)).await;
        if manager.is_ok() {
            super::device_plugin::start(config);
        }
        let manager = manager.map(Arc::new).map_err(|error| {
            tracing::error!("no pod gets devices: {error:#}");
            format!("the node gives no devices to pods: {error:#}").into()
        });
        Self { manager, pods }
    }

    /// Whom to ask; else why there is nobody.
    pub(crate) fn manager(&self) -> Result<&DeviceManager, &str> {
        self.manager.as_deref().map_err(|why| &**why)
    }

    /// Tells the pods from now on what changes of their devices, and others which devices these have.
    pub(crate) fn follow(&self, pods: &Pods<NodePorts>) {
        let Ok(manager) = &self.manager else { return };
        // Set once: there is one agent.
        let _ = self.pods.set(pods.clone());
        let (mut changes, told) = (manager.watch(), pods.clone());
        tokio::spawn(async move {
            loop {
                for resource in changes.next().await {
                    told.devices_changed(&resource);
                }
            }
        });
        // What changed before there was somebody to tell.
        for resource in manager.inventory().keys() {
            pods.devices_changed(resource);
        }
    }

    /// Of each resource, all devices and those that work.
    pub(crate) fn counts(&self) -> BTreeMap<ExtendedResource, (u64, u64)> {
        let inventory = self.manager().map(DeviceManager::inventory).unwrap_or_default();
        let counts =
            inventory.into_iter().map(|(name, amount)| (name, (amount.capacity, amount.allocatable)));
        counts.collect()
    }
}

async fn open(
    config: &Config,
    known: &[Found],
    pods: Arc<OnceLock<Pods<NodePorts>>>,
) -> anyhow::Result<DeviceManager> {
    let places = &config.devices;
    let socket = places.plugin_dir.join("kubelet.sock");
    if UnixStream::connect(&socket).is_ok() {
        bail!(
            "another program listens on {}: is it a kubelet? Stop it, or set devicePluginDir",
            socket.display()
        );
    }
    let options = Options {
        plugin_dir: places.plugin_dir.clone(),
        registry_dir: Some(places.registry_dir()),
        policy: places.policy,
        scope: places.scope,
        ..Options::new(config.run_dir.join("devices"))
    };
    let mut manager = DeviceManager::open(options, &held(known)).await?;
    let socket = places.pod_resources_socket();
    directory_of(&socket)?;
    let active = move || pods.get().map(active).unwrap_or_default();
    if let Err(error) = manager.serve_pod_resources(&socket, active) {
        // Nothing of the pods depends on it.
        tracing::error!(%error, "nobody can ask which pod has which device");
    }
    if places.policy != TopologyPolicy::None {
        tracing::info!(policy = ?places.policy, "devices are given by the machine's topology");
    }
    Ok(manager)
}

fn directory_of(socket: &Path) -> anyhow::Result<()> {
    let Some(directory) = socket.parent() else { return Ok(()) };
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// What pods have of which something may run. One that has ended, or that the machine's end has, has nothing.
fn held(known: &[Found]) -> BTreeMap<PodUid, PodDevices> {
    let may_run = known.iter().filter(|found| !found.rebooted && found.record.finished.is_none());
    may_run.filter_map(|found| Some((found.record.pod.uid.clone(), found.record.devices.clone()?))).collect()
}

/// The pods that have not ended.
fn active(pods: &Pods<NodePorts>) -> Vec<Arc<Pod>> {
    let all = pods.snapshot().into_iter();
    all.filter(|pod| pod.phase <= WorkerPhase::Terminating).map(|pod| pod.pod).collect()
}
