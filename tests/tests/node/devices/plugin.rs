//! A device plugin of device nodes that are the test's own, over the published protocol.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use coracle_device_api::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use coracle_device_api::deviceplugin::registration_client::RegistrationClient;
use coracle_device_api::deviceplugin::*;
use coracle_device_api::podresources::pod_resources_lister_client::PodResourcesListerClient;
use coracle_device_api::podresources::{ListPodResourcesRequest, ListPodResourcesResponse};
use coracle_device_api::tonic::service::Routes;
use coracle_device_api::tonic::{self, Request, Response, Status};
use coracle_device_api::{Listener, call, connect, serve};
use coracle_tests::node::Node;
use futures_util::stream::{self, Stream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub(crate) const RESOURCE: &str = "example.com/node";
const LONG: Duration = Duration::from_secs(30);

/// A plugin at work, until it is dropped.
pub(crate) struct Plugin {
    runtime: Runtime,
    directory: PathBuf,
    devices: watch::Sender<Vec<(String, bool)>>,
    script: watch::Sender<Script>,
    end: watch::Sender<()>,
}

/// What it does beside giving device nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// What it answers when devices are asked for, if that is no yes.
    pub(crate) refusal: Option<&'static str>,
    /// Whether, and how, it prepares devices before a container is created.
    pub(crate) preparing: Preparing,
    /// What devices bring by a CDI name.
    pub(crate) cdi: BTreeMap<String, String>,
    /// What of the host is mounted into a container with a device, at /given.
    pub(crate) mounts: BTreeMap<String, PathBuf>,
    /// Where devices are.
    pub(crate) numa: BTreeMap<String, i64>,
}

/// What becomes of a preparation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Preparing {
    /// None is wanted.
    #[default]
    Unneeded,
    Succeeds,
    Fails(&'static str),
    /// Nothing is answered, until that changes.
    Hangs,
}

#[derive(Clone)]
struct Service {
    nodes: Arc<BTreeMap<String, PathBuf>>,
    devices: watch::Receiver<Vec<(String, bool)>>,
    script: watch::Receiver<Script>,
}

impl Plugin {
    /// Serves these device nodes beside the kubelet's socket in `directory`.
    pub(crate) fn start(directory: &Path, nodes: &[(&str, PathBuf)]) -> Self {
        Self::start_with(directory, nodes, Script::default())
    }

    /// The same, with more to do.
    pub(crate) fn start_with(directory: &Path, nodes: &[(&str, PathBuf)], script: Script) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let all = nodes.iter().map(|(id, _)| ((*id).to_owned(), true)).collect();
        let (devices, listening) = watch::channel(all);
        let nodes = nodes.iter().map(|(id, path)| ((*id).to_owned(), path.clone())).collect();
        let (script, reading) = watch::channel(script);
        let service = Service { nodes: Arc::new(nodes), devices: listening, script: reading };
        let (end, _) = watch::channel(());
        let plugin = Self { runtime, directory: directory.to_owned(), devices, script, end };
        plugin.listen(service);
        plugin
    }

    fn listen(&self, service: Service) {
        let mut ended = self.end.subscribe();
        let socket = self.directory.join("node.sock");
        self.runtime.block_on(async move {
            let listener = Listener::bind(socket).unwrap();
            let end = async move { drop(ended.changed().await) };
            tokio::spawn(serve(listener, Routes::new(DevicePluginServer::new(service)), end));
        });
    }

    /// Listens again, where an agent that started has removed its socket.
    pub(crate) fn come_back(&self, nodes: &[(&str, PathBuf)]) {
        let nodes = nodes.iter().map(|(id, path)| ((*id).to_owned(), path.clone())).collect();
        let (devices, script) = (self.devices.subscribe(), self.script.subscribe());
        self.listen(Service { nodes: Arc::new(nodes), devices, script });
        self.register();
    }

    /// Tells the node that it is there.
    pub(crate) fn register(&self) {
        let request = RegisterRequest {
            version: "v1beta1".to_owned(),
            endpoint: "node.sock".to_owned(),
            resource_name: RESOURCE.to_owned(),
            options: Some(options(&self.script.borrow())),
        };
        self.runtime.block_on(async {
            let channel = connect(&self.directory.join(KUBELET_SOCKET), LONG).await.unwrap();
            let mut client = RegistrationClient::new(channel);
            call(LONG, request, |request| client.register(request)).await.unwrap();
        });
    }

    /// Has it do something else from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Script)) {
        self.script.send_modify(change);
    }

    /// Says whether a device works.
    pub(crate) fn set_healthy(&self, id: &str, healthy: bool) {
        self.devices.send_modify(|devices| {
            devices.iter_mut().filter(|(one, _)| one == id).for_each(|device| device.1 = healthy);
        });
    }
}

fn options(script: &Script) -> DevicePluginOptions {
    let pre_start_required = !matches!(script.preparing, Preparing::Unneeded);
    DevicePluginOptions { pre_start_required, get_preferred_allocation_available: false }
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

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options(&self.script.borrow())))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let mut devices = self.devices.clone();
        devices.mark_changed();
        let numa = self.script.borrow().numa.clone();
        let stream = stream::unfold((devices, numa), |(mut devices, numa)| async move {
            // It ends with the plugin.
            devices.changed().await.ok()?;
            let now = devices.borrow_and_update().clone();
            let device = |(id, healthy): (String, bool)| Device {
                topology: numa.get(&id).map(|node| TopologyInfo { nodes: vec![NumaNode { id: *node }] }),
                id,
                health: if healthy { HEALTHY } else { UNHEALTHY }.to_owned(),
            };
            let devices_now = now.into_iter().map(device).collect();
            Some((Ok(ListAndWatchResponse { devices: devices_now }), (devices, numa)))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Err(Status::unimplemented("it has said that it has no preference"))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let script = self.script.borrow().clone();
        if let Some(refusal) = script.refusal {
            return Err(Status::resource_exhausted(refusal));
        }
        let answer = |request: ContainerAllocateRequest| {
            let mut answer = ContainerAllocateResponse::default();
            answer.envs.insert("NODES".to_owned(), request.devices_ids.join(","));
            for id in &request.devices_ids {
                let host_path = self.nodes[id].display().to_string();
                let container_path = format!("/dev/given-{id}");
                answer.devices.push(DeviceSpec { container_path, host_path, permissions: "rw".to_owned() });
                let cdi = script.cdi.get(id).map(|name| CdiDevice { name: name.clone() });
                answer.cdi_devices.extend(cdi);
                let mount = script.mounts.get(id).map(|path| Mount {
                    container_path: "/given".to_owned(),
                    host_path: path.display().to_string(),
                    read_only: true,
                });
                answer.mounts.extend(mount);
            }
            answer
        };
        let container_responses = request.into_inner().container_requests.into_iter().map(answer).collect();
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        let mut script = self.script.clone();
        loop {
            let preparing = script.borrow_and_update().preparing;
            match preparing {
                Preparing::Unneeded => {
                    return Err(Status::unimplemented("it has said that it prepares nothing"));
                }
                Preparing::Succeeds => return Ok(Response::new(PreStartContainerResponse {})),
                Preparing::Fails(why) => return Err(Status::internal(why)),
                Preparing::Hangs => {
                    script.changed().await.map_err(|_| Status::cancelled("the plugin ends"))?;
                }
            }
        }
    }
}
