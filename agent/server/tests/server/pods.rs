use coracle_server::client::{Pod, WatchEvent, WatchEventType};
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;

use crate::node::{pod, running, waiting};
use crate::{Served, within};

#[tokio::test]
async fn pods_are_listed_as_kubernetes_objects() {
    let served = Served::new();
    assert!(served.client.pods().await.unwrap().is_empty());
    served.node.put(&pod(), vec![running("web", 0, None), waiting("side", "ContainerCreating", 0, None)]);
    let pods = served.client.pods().await.unwrap();
    let [web] = pods.as_slice() else { panic!("{pods:?}") };
    assert_eq!((web.metadata.namespace.as_str(), web.metadata.name.as_str()), ("default", "web"));
    assert_eq!(web.spec.node_name, "node");
    assert_eq!(web.status.host_ip, "192.0.2.1");
    assert_eq!(
        web.status.container_statuses[0].state.running.as_ref().unwrap().started_at,
        Some(Timestamp::UNIX_EPOCH)
    );
    assert_eq!(web.status.container_statuses[1].state.waiting.as_ref().unwrap().reason, "ContainerCreating");
    assert_eq!(web.object["kind"], "Pod");
    assert_eq!(web.object["metadata"]["resourceVersion"], "1");
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_every_change() {
    let served = Served::new();
    let first = pod();
    served.node.put(&first, vec![waiting("web", "ContainerCreating", 0, None)]);
    let mut watch = served.client.watch_pods().await.unwrap();
    let event = next(&mut watch).await;
    assert_eq!((event.kind, event.object.metadata.name.as_str()), (WatchEventType::Added, "web"));

    served.node.put(&first, vec![running("web", 0, None)]);
    let event = next(&mut watch).await;
    assert_eq!(event.kind, WatchEventType::Modified);
    assert!(event.object.status.container_statuses[0].state.running.is_some());

    served.node.change(|pods, version| {
        pods[0].deletion = Some(coracle_server::Deletion {
            requested_at: Timestamp::UNIX_EPOCH,
            grace: std::time::Duration::from_secs(30),
        });
        pods[0].version = version;
    });
    let event = next(&mut watch).await;
    assert_eq!(event.object.metadata.deletion_timestamp.unwrap().as_second(), 30);
    assert_eq!(event.object.object["metadata"]["deletionGracePeriodSeconds"], 30);

    served.node.change(|pods, _| pods.clear());
    assert_eq!(next(&mut watch).await.kind, WatchEventType::Deleted);
}

async fn next(
    watch: &mut (impl Stream<Item = Result<WatchEvent<Pod>, coracle_server::client::ClientError>> + Unpin),
) -> WatchEvent<Pod> {
    within(watch.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn problems_are_told() {
    let served = Served::new();
    let problems = served.client.problems().await.unwrap();
    assert_eq!(problems[0].message, "line 3: no");
}
