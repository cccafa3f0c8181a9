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
    end: watch::Sender<()>,
}

#[derive(Clone)]
struct Service {
    nodes: Arc<BTreeMap<String, PathBuf>>,
    devices: watch::Receiver<Vec<(String, bool)>>,
}

impl Plugin {
    /// Serves these device nodes beside the kubelet's socket in `directory`.
    pub(crate) fn start(directory: &Path, nodes: &[(&str, PathBuf)]) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let all = nodes.iter().map(|(id, _)| ((*id).to_owned(), true)).collect();
        let (devices, listening) = watch::channel(all);
        let nodes = nodes.iter().map(|(id, path)| ((*id).to_owned(), path.clone())).collect();
        let service = Service { nodes: Arc::new(nodes), devices: listening };
        let (end, _) = watch::channel(());
        let plugin = Self { runtime, directory: directory.to_owned(), devices, end };
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
        self.listen(Service { nodes: Arc::new(nodes), devices: self.devices.subscribe() });
        self.register();
    }

    /// Tells the node that it is there.
    pub(crate) fn register(&self) {
        let request = RegisterRequest {
            version: "v1beta1".to_owned(),
            endpoint: "node.sock".to_owned(),
            resource_name: RESOURCE.to_owned(),
            options: Some(DevicePluginOptions::default()),
        };
        self.runtime.block_on(async {
            let channel = connect(&self.directory.join(KUBELET_SOCKET), LONG).await.unwrap();
            let mut client = RegistrationClient::new(channel);
            call(LONG, request, |request| client.register(request)).await.unwrap();
        });
    }

    /// Says whether a device works.
    pub(crate) fn set_healthy(&self, id: &str, healthy: bool) {
        self.devices.send_modify(|devices| {
            devices.iter_mut().filter(|(one, _)| one == id).for_each(|device| device.1 = healthy);
        });
    }
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
        Ok(Response::new(DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let mut devices = self.devices.clone();
        devices.mark_changed();
        let stream = stream::unfold(devices, |mut devices| async move {
            // It ends with the plugin.
            devices.changed().await.ok()?;
            let now = devices.borrow_and_update().clone();
            let device = |(id, healthy): (String, bool)| Device {
                id,
                health: if healthy { HEALTHY } else { UNHEALTHY }.to_owned(),
                topology: None,
            };
            let devices_now = now.into_iter().map(device).collect();
            Some((Ok(ListAndWatchResponse { devices: devices_now }), devices))
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
        let answer = |request: ContainerAllocateRequest| {
            let mut answer = ContainerAllocateResponse::default();
            answer.envs.insert("NODES".to_owned(), request.devices_ids.join(","));
            for id in &request.devices_ids {
                let host_path = self.nodes[id].display().to_string();
                let container_path = format!("/dev/given-{id}");
                answer.devices.push(DeviceSpec { container_path, host_path, permissions: "rw".to_owned() });
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
        Err(Status::unimplemented("it has said that it prepares nothing"))
    }
}
