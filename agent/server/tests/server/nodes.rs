//! The node itself.

use serde_json::json;

use crate::Served;

#[tokio::test]
async fn a_node_is_shown_with_what_it_has_of_devices() {
    let served = Served::new();
    let nodes = served.client.nodes().await.unwrap();
    let [node] = nodes.as_slice() else { panic!("{nodes:?}") };
    let amounts = |gpus: &str| json!({"cpu": "1500m", "memory": "1048576Ki", "ephemeral-storage": "1073741824Ki", "example.com/gpu": gpus});
    let status = &node.object["status"];
    assert_eq!((&status["capacity"], &status["allocatable"]), (&amounts("4"), &amounts("3")));
    assert_eq!(status["conditions"][0]["status"], "True");
    assert_eq!(status["nodeInfo"]["architecture"], "amd64");
    assert_eq!(node.status.addresses[0].address, "192.0.2.1");
    assert_eq!(node.object["metadata"]["name"], node.metadata.name);
}
