//! The podresources API: who has what, for monitoring.

use std::sync::{Arc, Weak};

use coracle_device_api::podresources::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use coracle_device_api::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse,
    NumaNode, PodResources as PodMessage, TopologyInfo,
};
use coracle_device_api::tonic::{self, Request, Response, Status};
use coracle_model::{ExtendedResource, Pod};

use crate::inventory::{Device, Devices};
use crate::numa::NumaNodes;
use crate::state::{Shared, State};

/// Who knows which pods are active: those that have not come to their end.
pub trait ActivePods: Send + Sync + 'static {
    /// These, in no order.
    fn active(&self) -> Vec<Arc<Pod>>;
}

impl<F: Fn() -> Vec<Arc<Pod>> + Send + Sync + 'static> ActivePods for F {
    fn active(&self) -> Vec<Arc<Pod>> {
        self()
    }
}

/// Answers for as long as the manager is there.
pub(crate) struct PodResources<P> {
    shared: Weak<Shared>,
    pods: P,
}

impl<P: ActivePods> PodResources<P> {
    pub(crate) fn new(shared: Weak<Shared>, pods: P) -> Self {
        Self { shared, pods }
    }

    pub(crate) fn service(self, longest: usize) -> PodResourcesListerServer<Self> {
        PodResourcesListerServer::new(self)
            .max_encoding_message_size(longest)
            .max_decoding_message_size(longest)
    }

    fn shared(&self) -> Result<Arc<Shared>, Status> {
        self.shared.upgrade().ok_or_else(|| Status::unavailable("the node is stopping"))
    }
}

#[tonic::async_trait]
impl<P: ActivePods> PodResourcesLister for PodResources<P> {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        let (shared, mut pods) = (self.shared()?, self.pods.active());
        pods.sort_by(|one, other| one.key.cmp(&other.key));
        let state = shared.lock();
        let pod_resources = pods.iter().map(|pod| of_pod(&state, pod)).collect();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        let shared = self.shared()?;
        let state = shared.lock();
        let mut devices = Vec::new();
        for (resource, all) in state.devices() {
            let healthy = all.iter().filter(|(_, device)| device.healthy);
            devices.extend(healthy.map(|(id, device)| message(resource, id, Some(device))));
        }
        Ok(Response::new(AllocatableResourcesResponse { devices, cpu_ids: Vec::new(), memory: Vec::new() }))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        let (shared, request) = (self.shared()?, request.into_inner());
        let GetPodResourcesRequest { pod_name, pod_namespace } = request;
        let pods = self.pods.active();
        let is_it = |pod: &&Arc<Pod>| {
            pod.key.name.as_str() == pod_name && pod.key.namespace.as_str() == pod_namespace
        };
        let pod = pods.iter().find(is_it).ok_or_else(|| {
            Status::not_found(format!("pod {pod_name} in namespace {pod_namespace} not found"))
        })?;
        let pod_resources = Some(of_pod(&shared.lock(), pod));
        Ok(Response::new(GetPodResourcesResponse { pod_resources }))
    }
}

/// What a pod has. As in the kubelet, init containers other than sidecars are not told: their devices are others' by then.
fn of_pod(state: &State, pod: &Pod) -> PodMessage {
    let has = state.claims.of(&pod.uid);
    let sidecars = pod.spec.init_containers.iter().filter(|init| init.is_sidecar());
    let containers = sidecars.chain(&pod.spec.containers).map(|container| {
        let claims = has.and_then(|has| has.get(&container.name)).into_iter().flatten();
        let devices = claims.flat_map(|(resource, claim)| {
            let known = state.devices_of(resource);
            claim.devices.iter().map(move |id| message(resource, id, known.and_then(|known| known.get(id))))
        });
        ContainerResources {
            name: container.name.to_string(),
            devices: devices.collect(),
            cpu_ids: Vec::new(),
            memory: Vec::new(),
            dynamic_resources: Vec::new(),
        }
    });
    PodMessage {
        name: pod.key.name.to_string(),
        namespace: pod.key.namespace.to_string(),
        containers: containers.collect(),
    }
}

/// One device, as the kubelet tells them: each on its own, for its topology.
fn message(resource: &ExtendedResource, id: &str, device: Option<&Device>) -> ContainerDevices {
    let nodes = device.map(|device| device.numa).unwrap_or(NumaNodes::NONE);
    let topology = (!nodes.is_empty())
        .then(|| TopologyInfo { nodes: nodes.iter().map(|id| NumaNode { id: i64::from(id) }).collect() });
    ContainerDevices { resource_name: resource.to_string(), device_ids: vec![id.to_owned()], topology }
}

impl State {
    fn devices_of(&self, resource: &ExtendedResource) -> Option<&Devices> {
        self.devices().find(|(name, _)| *name == resource).map(|(_, devices)| devices)
    }
}
