//! A device plugin of device nodes that are the test's own, over the published protocol.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use coracle_device_api::deviceplugin::*;
use coracle_device_api::podresources::pod_resources_lister_client::PodResourcesListerClient;
use coracle_device_api::podresources::{ListPodResourcesRequest, ListPodResourcesResponse};
use coracle_device_api::{call, connect};
use coracle_scripted_plugin::{Brings, Script, device};
use coracle_tests::node::Node;
use tokio::runtime::Runtime;

pub(crate) const RESOURCE: &str = "example.com/node";
const LONG: Duration = Duration::from_secs(30);

/// A plugin at work, until it is dropped.
pub(crate) struct Plugin {
    plugin: coracle_scripted_plugin::Plugin,
    runtime: Runtime,
    directory: PathBuf,
}

/// What devices bring beside their nodes, and where they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    /// By a CDI name.
    pub(crate) cdi: BTreeMap<String, String>,
    /// What of the host is mounted into a container with a device, at /given.
    pub(crate) mounts: BTreeMap<String, PathBuf>,
    /// Of which NUMA node they are.
    pub(crate) numa: BTreeMap<String, i64>,
}

impl Plugin {
    /// Serves these device nodes beside the kubelet's socket in `directory`.
    pub(crate) fn start(directory: &Path, nodes: &[(&str, PathBuf)]) -> Self {
        Self::start_with(directory, nodes, Extras::default(), Script::default())
    }

    /// The same, with more to bring and to do.
    pub(crate) fn start_with(
        directory: &Path,
        nodes: &[(&str, PathBuf)],
        extras: Extras,
        script: Script,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let place = |id: &str| Some(TopologyInfo { nodes: vec![NumaNode { id: *extras.numa.get(id)? }] });
        let devices =
            nodes.iter().map(|(id, _)| Device { topology: place(id), ..device(id, HEALTHY) }).collect();
        let script = Script { brings: Some(brings(nodes, extras)), ..script };
        let plugin = {
            let _runtime = runtime.enter();
            coracle_scripted_plugin::Plugin::start(directory.join("node.sock"), script, devices)
        };
        Self { plugin, runtime, directory: directory.to_owned() }
    }

    /// Listens again, where an agent that started has removed its socket.
    pub(crate) fn come_back(&self) {
        {
            let _runtime = self.runtime.enter();
            self.plugin.listen();
        }
        self.register();
    }

    /// Tells the node that it is there.
    pub(crate) fn register(&self) {
        self.runtime.block_on(self.plugin.register(&self.directory, RESOURCE)).unwrap();
    }

    /// What it does.
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.plugin.script()
    }

    /// Says whether a device works.
    pub(crate) fn set_healthy(&self, id: &str, healthy: bool) {
        let health = if healthy { HEALTHY } else { UNHEALTHY };
        self.plugin.devices.send_modify(|devices| {
            let all = devices.iter_mut().flatten();
            all.filter(|one| one.id == id).for_each(|device| device.health = health.to_owned());
        });
    }
}

/// What containers get with these devices.
fn brings(nodes: &[(&str, PathBuf)], extras: Extras) -> Arc<Brings> {
    let nodes: BTreeMap<String, PathBuf> =
        nodes.iter().map(|(id, path)| ((*id).to_owned(), path.clone())).collect();
    Arc::new(move |ids| {
        let mut answer = ContainerAllocateResponse::default();
        answer.envs.insert("NODES".to_owned(), ids.join(","));
        for id in ids {
            let host_path = nodes[id].display().to_string();
            let container_path = format!("/dev/given-{id}");
            answer.devices.push(DeviceSpec { container_path, host_path, permissions: "rw".to_owned() });
            let cdi = extras.cdi.get(id).map(|name| CdiDevice { name: name.clone() });
            answer.cdi_devices.extend(cdi);
            let mount = extras.mounts.get(id).map(|path| Mount {
                container_path: "/given".to_owned(),
                host_path: path.display().to_string(),
                read_only: true,
            });
            answer.mounts.extend(mount);
        }
        answer
    })
}

/// What a node tells whoever asks which pod has which device: by pod, its devices.
pub(crate) fn pod_resources(node: &Node) -> BTreeMap<String, Vec<String>> {
    let socket = node.path("kubelet/pod-resources/kubelet.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ListPodResourcesResponse { pod_resources } = runtime.block_on(async {
        let channel = connect(&socket, LONG).await.unwrap();
        let mut client = PodResourcesListerClient::new(channel);
        call(LONG, ListPodResourcesRequest {}, |request| client.list(request)).await.unwrap()
    });
    let devices = |pod: coracle_device_api::podresources::PodResources| {
        let all = pod.containers.into_iter().flat_map(|container| container.devices);
        (pod.name, all.flat_map(|devices| devices.device_ids).collect())
    };
    pod_resources.into_iter().map(devices).collect()
}
