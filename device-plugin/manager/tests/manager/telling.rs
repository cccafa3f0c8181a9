//! The podresources API.

use std::sync::Arc;

use coracle_device_api::deviceplugin::{NumaNode, TopologyInfo};
use coracle_device_api::podresources::pod_resources_lister_client::PodResourcesListerClient;
use coracle_device_api::podresources::{
    AllocatableResourcesRequest, GetPodResourcesRequest, ListPodResourcesRequest,
};
use coracle_device_api::tonic::Code;
use coracle_device_api::{call, connect};

use super::*;
use coracle_scripted_plugin::device;

#[tokio::test]
async fn podresources_tells_of_active_pods_and_of_healthy_devices() {
    let mut node = Node::new().await;
    let plugin = node.plugin(usual(), &["1"]).await;
    let topology = Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] });
    let near = coracle_device_api::deviceplugin::Device { topology, ..device("1", "Healthy") };
    plugin.devices.send_replace(Some(vec![near, device("2", "Healthy"), device("3", "Unhealthy")]));
    node.has(3, 2).await;
    let pods = [Arc::new(pod("b", 0)), Arc::new(pod("a", 2))];
    node.manager.allocate(&pods[1]).await.unwrap();
    let socket = node.directory.path().join("pod-resources/kubelet.sock");
    let active = pods.to_vec();
    node.manager.serve_pod_resources(&socket, move || active.clone()).unwrap();

    let mut client = PodResourcesListerClient::new(connect(&socket, LONG).await.unwrap());
    let list = call(LONG, ListPodResourcesRequest {}, |request| client.list(request)).await.unwrap();
    let names: Vec<_> = list.pod_resources.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let devices = &list.pod_resources[0].containers[0].devices;
    let told: Vec<_> = devices
        .iter()
        .map(|one| (one.device_ids.join(","), one.topology.as_ref().map(|topology| topology.nodes[0].id)))
        .collect();
    assert_eq!(told, [("1".to_owned(), Some(1)), ("2".to_owned(), None)]);
    assert!(list.pod_resources[1].containers[0].devices.is_empty());

    let named = |name: &str| GetPodResourcesRequest {
        pod_name: name.to_owned(),
        pod_namespace: "default".to_owned(),
    };
    let one = call(LONG, named("a"), |request| client.get(request)).await.unwrap();
    assert_eq!(one.pod_resources.as_ref(), list.pod_resources.first());
    let none = call(LONG, named("c"), |request| client.get(request)).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
    let all =
        call(LONG, AllocatableResourcesRequest {}, |request| client.get_allocatable_resources(request)).await;
    let all = all.unwrap().devices;
    assert_eq!(all.iter().map(|one| one.device_ids[0].as_str()).collect::<Vec<_>>(), ["1", "2"]);
}
