//! Plugins that send more than anybody can want.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coracle_device_api::deviceplugin::{Device, HEALTHY, UNHEALTHY};
use coracle_device_api::tonic::Status;
use tokio::task::JoinSet;

use super::*;
use coracle_scripted_plugin::{Does, Script, device, register};

/// How many registrations there are without end.
const REGISTRATIONS: usize = 2000;

/// How many lists a plugin has to say at once.
const LISTS: usize = 60;

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
async fn of_lists_that_had_to_wait_the_last_one_counts() {
    let node = Node::new().await;
    // Each is another one than that before, and longer than what may wait unread.
    let ids: Vec<String> = (0..1500).map(|id| format!("{id:060}")).collect();
    let said = move |at: usize| healthy(&ids.iter().map(String::as_str).skip(at % 2).collect::<Vec<_>>());
    let says = move |at: usize| (at < LISTS).then(|| said(at));
    let script = Script { says: Some(Arc::new(says)), ..usual() };
    let plugin = Plugin::start(node.plugins().join("x.sock"), script, healthy(&["1", "2", "3"]));
    let mut changes = node.manager.watch();
    plugin.register(&node.plugins(), RESOURCE).await.unwrap();
    let last = async {
        while node.manager.inventory().get(&resource()).is_none_or(|has| has.capacity != 3) {
            changes.next().await;
        }
    };
    tokio::time::timeout(LONG, last).await.expect("the last list is told");
    // One that waited is heard in every other way meanwhile.
    assert_eq!(node.allocate(&pod("a", 3)).await.unwrap(), "1,2,3");
}

#[tokio::test]
async fn one_that_never_stops_to_name_devices_is_asked_for_them_and_told_of() {
    let mut node = Node::new().await;
    let (lists, ill) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (at_list, is_ill) = (Arc::clone(&lists), Arc::clone(&ill));
    let says = move |at: usize| {
        at_list.store(at, Ordering::SeqCst);
        let mut devices: Vec<Device> = (0..1000).map(|id| device(&format!("{id:040}"), HEALTHY)).collect();
        devices[1 + at % 999].health = UNHEALTHY.to_owned();
        if is_ill.load(Ordering::SeqCst) {
            devices[0].health = UNHEALTHY.to_owned();
        }
        Some(devices)
    };
    let script = Script { says: Some(Arc::new(says)), ..usual() };
    let plugin = Plugin::start(node.plugins().join("x.sock"), script, Vec::new());
    plugin.register(&node.plugins(), RESOURCE).await.unwrap();
    node.has(1000, 999).await;
    // Until it is listened to as rarely as it gets.
    let mut changes = node.manager.watch();
    for _ in 0..8 {
        tokio::time::timeout(LONG, changes.next()).await.expect("lists go on");
    }
    node.allocate(&pod("a", 1)).await.unwrap();
    ill.store(true, Ordering::SeqCst);
    node.has(1000, 998).await;
    assert!(lists.load(Ordering::SeqCst) > 8, "it goes on");
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
