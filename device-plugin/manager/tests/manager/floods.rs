//! Plugins that send more than anybody can want.

use std::time::Duration;

use coracle_device_api::deviceplugin::Device;
use coracle_device_api::tonic::Status;
use tokio::task::JoinSet;

use super::*;
use coracle_scripted_plugin::{Does, Script, register};

/// How many registrations there are without end.
const REGISTRATIONS: usize = 2000;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn registrations_without_end_leave_nothing_and_the_last_one_counts() {
    let mut node = Node::new().await;
    let plugin = node.plugin(usual(), &["1"]).await;
    let before = descriptors();
    // One that nobody listens for, one that is there, in turn and sixteen at a time.
    let mut all: JoinSet<Result<(), Status>> = JoinSet::new();
    for at in 0..REGISTRATIONS {
        if all.len() == 16 {
            all.join_next().await.unwrap().unwrap().unwrap();
        }
        let directory = node.plugins();
        let endpoint = if at % 2 == 0 { "x.sock" } else { "nobody.sock" };
        all.spawn(async move { register(&directory, "v1beta1", endpoint, RESOURCE, None).await });
    }
    while let Some(registered) = all.join_next().await {
        registered.unwrap().unwrap();
    }
    plugin.name(&["1", "2"]);
    plugin.register(&node.plugins(), RESOURCE).await.unwrap();
    node.has(2, 2).await;
    assert_eq!(node.allocate(&pod("a", 2)).await.unwrap(), "1,2");
    let few = async {
        while descriptors() > before + 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let left = tokio::time::timeout(LONG, few).await;
    assert!(left.is_ok(), "{} descriptors are open, and were {before}", descriptors());
}

#[tokio::test]
async fn a_list_of_very_many_devices_is_refused_before_it_is_taken_apart() {
    let mut node = Node::new().await;
    let plugin = node.plugin(usual(), &["1"]).await;
    // Two octets each.
    plugin.devices.send_replace(Some(vec![Device::default(); 1_000_000]));
    node.has(1, 0).await;
    let why = node.allocate(&pod("a", 1)).await.unwrap_err();
    assert!(why.contains("it has stopped to answer"), "{why}");
    plugin.name(&["1", "2"]);
    plugin.register(&node.plugins(), RESOURCE).await.unwrap();
    node.has(2, 2).await;
    // Longer than any message may be.
    let long: Vec<String> = (0..9000).map(|id| format!("{id:2000}")).collect();
    plugin.name(&long.iter().map(String::as_str).collect::<Vec<_>>());
    node.has(2, 0).await;
    plugin.name(&["1", "2"]);
    plugin.register(&node.plugins(), RESOURCE).await.unwrap();
    node.has(2, 2).await;
}

#[tokio::test]
async fn an_answer_of_very_many_things_is_refused_before_it_is_taken_apart() {
    let mut node = Node::new().await;
    let plugin = node.plugin(Script { allocate: Does::Flood, ..usual() }, &["1"]).await;
    let refused = node.allocate(&pod("a", 1)).await.unwrap_err();
    assert!(refused.contains("elements, and may have"), "{refused}");
    plugin.script().allocate = Does::Answer;
    assert_eq!(node.allocate(&pod("a", 1)).await.unwrap(), "1");
}
