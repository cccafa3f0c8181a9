//! What a kubelet asks of one resource (device-plugin API v1beta1).

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use coracle_device_api::deviceplugin::{
    AllocateRequest, AllocateResponse, CdiDevice, ContainerAllocateResponse,
    ContainerPreferredAllocationResponse, Device, DevicePluginOptions, DeviceSpec, Empty, HEALTHY,
    ListAndWatchResponse, Mount, NumaNode, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse, TopologyInfo, UNHEALTHY,
    device_plugin_server::DevicePlugin,
};
use coracle_device_api::tonic::{self, Request, Response, Status};
use coracle_model::DeviceNode;
use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::device::Resource;
use crate::prefer::prefer;

/// More containers than a pod can have.
const MOST_CONTAINERS: usize = 1000;

/// The service of one resource.
pub(crate) struct Service {
    resource: watch::Receiver<Arc<Resource>>,
    end: CancellationToken,
}

/// Whether a kubelet is asked for its opinion, and before what it asks for ours.
pub(crate) fn options() -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: false, get_preferred_allocation_available: true }
}

// === impl Service ===

impl Service {
    /// Serves what `resource` says, until `end`.
    pub(crate) fn new(resource: watch::Receiver<Arc<Resource>>, end: CancellationToken) -> Self {
        Self { resource, end }
    }

    fn now(&self) -> Arc<Resource> {
        Arc::clone(&self.resource.borrow())
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options()))
    }

    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let mut resource = self.resource.clone();
        resource.mark_changed();
        let start = (resource, self.end.clone(), None);
        let lists = stream::unfold(start, |(mut resource, end, told)| async move {
            loop {
                tokio::select! {
                    () = end.cancelled() => return None,
                    changed = resource.changed() => changed.ok()?,
                }
                let list = list(&resource.borrow_and_update());
                // What changed may be nothing that a kubelet is told.
                if told.as_ref() != Some(&list) {
                    return Some((Ok(list.clone()), (resource, end, Some(list))));
                }
            }
        });
        Ok(Response::new(Box::pin(lists)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let requests = request.into_inner().container_requests;
        bounded(requests.len())?;
        let resource = self.now();
        let container_responses = requests
            .into_iter()
            .map(|request| {
                let size = usize::try_from(request.allocation_size).unwrap_or_default();
                let ids = prefer(
                    &resource,
                    &request.available_device_i_ds,
                    &request.must_include_device_i_ds,
                    size,
                );
                ContainerPreferredAllocationResponse { device_i_ds: ids }
            })
            .collect();
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let requests = request.into_inner().container_requests;
        bounded(requests.len())?;
        let resource = self.now();
        let answer = |ids: &[String]| allocate(&resource, ids);
        let container_responses =
            requests.iter().map(|one| answer(&one.devices_ids)).collect::<Result<_, _>>()?;
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

fn bounded(containers: usize) -> Result<(), Status> {
    if containers <= MOST_CONTAINERS {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("{containers} containers are more than a pod has")))
}

/// What a kubelet is told there is.
fn list(resource: &Resource) -> ListAndWatchResponse {
    let devices = resource.offered().map(|(id, device)| Device {
        id,
        health: if device.unhealthy.is_some() { UNHEALTHY } else { HEALTHY }.to_owned(),
        topology: device.numa.map(|node| TopologyInfo { nodes: vec![NumaNode { id: i64::from(node) }] }),
    });
    ListAndWatchResponse { devices: devices.collect() }
}

/// What a container gets of these devices.
fn allocate(resource: &Resource, ids: &[String]) -> Result<ContainerAllocateResponse, Status> {
    let name = &resource.name;
    if resource.one_share_only && ids.len() > 1 {
        return Err(Status::invalid_argument(format!(
            "a container asks for {} of {name}, which are shares: more than one brings it no more (failRequestsGreaterThanOne)",
            ids.len()
        )));
    }
    let mut seen = BTreeSet::new();
    let mut nodes: BTreeMap<String, DeviceNode> = BTreeMap::new();
    let mut mounts: BTreeMap<String, Mount> = BTreeMap::new();
    let mut answer = ContainerAllocateResponse::default();
    for id in ids {
        let device = resource.device(id);
        let device = device.ok_or_else(|| Status::not_found(format!("{name} has no device {id:?}")))?;
        if let Some(why) = &device.unhealthy {
            return Err(Status::failed_precondition(format!(
                "device {id:?} of {name} cannot be used: {why}"
            )));
        }
        // A second share of a device brings the same.
        if !seen.insert(device.id.as_str()) {
            continue;
        }
        for cdi in &device.grant.cdi {
            answer.cdi_devices.push(CdiDevice { name: cdi.clone() });
        }
        for node in &device.grant.nodes {
            let there = nodes.entry(node.path.clone()).or_insert_with(|| node.clone());
            if there.host_path != node.host_path {
                return Err(Status::failed_precondition(format!(
                    "two devices of {name} would be {} in the container: {} and {}; give containerPath a wildcard, or ask for one",
                    node.path, there.host_path, node.host_path
                )));
            }
            let more: String =
                node.permissions.chars().filter(|letter| !there.permissions.contains(*letter)).collect();
            there.permissions.push_str(&more);
        }
        for mount in &device.grant.mounts {
            let read_only = mount.options.iter().any(|option| option == "ro");
            let (container_path, host_path) = (mount.container_path.clone(), mount.host_path.clone());
            mounts.entry(container_path.clone()).or_insert(Mount { container_path, host_path, read_only });
        }
        answer.envs.extend(device.grant.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    answer.devices = nodes.into_values().map(spec).collect();
    answer.mounts = mounts.into_values().collect();
    Ok(answer)
}

fn spec(node: DeviceNode) -> DeviceSpec {
    DeviceSpec { container_path: node.path, host_path: node.host_path, permissions: node.permissions }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};
    use proptest::prelude::*;

    use super::*;
    use crate::device::{self, Grant, node};

    fn device(id: &str, path: &str, host: &str) -> device::Device {
        let grant = Grant {
            nodes: vec![node(path, host, "r"), node("/dev/ctl", "/dev/ctl", "rw")],
            ..Grant::default()
        };
        device::Device { id: id.to_owned(), unhealthy: None, numa: Some(1), place: Vec::new(), grant }
    }

    fn resource(shares: u32) -> Resource {
        Resource::new("a.b/c", vec![device("x", "/dev/x", "/dev/x"), device("y", "/dev/x", "/dev/y")], shares)
    }

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn code(resource: &Resource, wanted: &[&str]) -> tonic::Code {
        allocate(resource, &ids(wanted)).map_or_else(|status| status.code(), |_| tonic::Code::Ok)
    }

    #[test]
    fn a_container_gets_what_its_devices_bring_once() {
        let answer = allocate(&resource(2), &ids(&["x::0", "x::1"])).expect("an answer");
        let specs: Vec<_> =
            answer.devices.iter().map(|it| (it.container_path.as_str(), it.permissions.as_str())).collect();
        assert_eq!(specs, [("/dev/ctl", "rw"), ("/dev/x", "r")]);
        assert_eq!(allocate(&resource(1), &[]).ok(), Some(ContainerAllocateResponse::default()));
    }

    #[test]
    fn strange_requests_are_refused() {
        assert_eq!(code(&resource(1), &["z"]), tonic::Code::NotFound);
        assert_eq!(code(&resource(1), &["x::0"]), tonic::Code::NotFound);
        assert_eq!(code(&resource(2), &["x"]), tonic::Code::NotFound);
        assert_eq!(code(&resource(1), &["x", "y"]), tonic::Code::FailedPrecondition, "both would be /dev/x");
        let mut sick = resource(1);
        sick.devices[0].unhealthy = Some("gone".to_owned());
        assert_eq!(code(&sick, &["x"]), tonic::Code::FailedPrecondition);
        assert_eq!(code(&sick, &["y"]), tonic::Code::Ok);
        let mut single = resource(2);
        single.one_share_only = true;
        assert_eq!(code(&single, &["x::0", "x::1"]), tonic::Code::InvalidArgument);
        assert_eq!(code(&single, &["x::0"]), tonic::Code::Ok);
    }

    fn service(resource: Resource) -> (watch::Sender<Arc<Resource>>, CancellationToken, Service) {
        let (sender, receiver) = watch::channel(Arc::new(resource));
        let end = CancellationToken::new();
        (sender, end.clone(), Service::new(receiver, end))
    }

    #[tokio::test]
    async fn only_changes_are_told() {
        let (sender, end, service) = service(resource(1));
        let mut lists = service.list_and_watch(Request::new(Empty {})).await.expect("a stream").into_inner();
        let summary = |list: ListAndWatchResponse| -> Vec<(String, String)> {
            list.devices.into_iter().map(|it| (it.id, it.health)).collect()
        };
        let first = lists.next().await.expect("a list").expect("a list");
        assert_eq!(first.devices[0].topology, Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }));
        assert_eq!(summary(first), [("x".into(), "Healthy".into()), ("y".into(), "Healthy".into())]);
        assert!(lists.next().now_or_never().is_none());
        sender.send_replace(Arc::new(resource(1)));
        assert!(lists.next().now_or_never().is_none(), "the same as before is no news");
        let mut sick = resource(1);
        sick.devices[1].unhealthy = Some("gone".to_owned());
        sender.send_replace(Arc::new(sick));
        let second = lists.next().await.expect("a list").expect("a list");
        assert_eq!(summary(second), [("x".into(), "Healthy".into()), ("y".into(), "Unhealthy".into())]);
        end.cancel();
        assert!(lists.next().await.is_none());
    }

    #[tokio::test]
    async fn preferences_are_by_container() {
        let (_sender, _end, service) = service(resource(2));
        let request = |available: &[&str], size| {
            coracle_device_api::deviceplugin::ContainerPreferredAllocationRequest {
                available_device_i_ds: ids(available),
                must_include_device_i_ds: Vec::new(),
                allocation_size: size,
            }
        };
        let container_requests =
            vec![request(&["x::0", "y::0", "y::1"], 1), request(&["x::0"], -1), request(&[], 3)];
        let answer = service
            .get_preferred_allocation(Request::new(PreferredAllocationRequest { container_requests }))
            .await;
        let answer = answer.expect("an answer").into_inner().container_responses;
        let chosen: Vec<_> = answer.into_iter().map(|it| it.device_i_ds).collect();
        assert_eq!(chosen, [ids(&["y::0"]), ids(&[]), ids(&[])]);
    }

    proptest! {
        #[test]
        fn nothing_asked_for_makes_it_fail(wanted in proptest::collection::vec("[x-z]?(::)?[0-9+]{0,2}", 0..8), shares in 0u32..3) {
            let _ = allocate(&resource(shares), &wanted);
        }
    }
}
