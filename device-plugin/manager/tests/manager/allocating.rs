//! Pods get devices.

use std::sync::Arc;

use coracle_device_api::deviceplugin::{DevicePluginOptions, UNHEALTHY};
use coracle_device_manager::{AllocateError, PrepareError};
use coracle_model::{DeviceHealth, RestartPolicy};

use super::*;
use coracle_scripted_plugin::{Does, Script, device, healthy};

fn script(change: impl FnOnce(&mut Script)) -> Script {
    let mut script = usual();
    change(&mut script);
    script
}

#[tokio::test]
async fn a_pod_waits_for_its_plugin_and_is_told_what_its_devices_bring() {
    let mut node = Node::new().await;
    let pod = pod("a", 2);
    let missing = node.manager.allocate(&pod).await.unwrap_err();
    assert!(matches!(missing, AllocateError::Missing { .. }), "{missing}");
    let plugin = node.plugin(usual(), &["1", "2", "3"]).await;
    assert_eq!(node.allocate(&pod).await.unwrap(), "1,2");
    assert_eq!(node.allocate(&pod).await.unwrap(), "1,2", "the same is told again");
    assert_eq!(plugin.script().allocated, [["1", "2"]]);
    let answer = node.manager.prepare(&pod, &name("c")).await.unwrap();
    assert_eq!(answer.edits.env, [("DEVICES".to_owned(), "1,2".to_owned())]);
    assert_eq!(answer.edits.device_nodes[0].path, "/dev/x");
    assert!(plugin.script().started.is_empty(), "it did not want to be told");

    let refused = node.allocate(&super::pod("b", 2)).await.unwrap_err();
    assert_eq!(
        refused,
        "Node didn't have enough resource: example.com/x, requested: 2, used: 2, capacity: 3"
    );
    assert_eq!(node.manager.holders(&resource()), [pod.uid.clone()].into());
    node.manager.release(&pod.uid).await.unwrap();
    assert!(node.changes.next().await.contains(&resource()), "who waits is told");
    assert_eq!(node.allocate(&super::pod("b", 3)).await.unwrap(), "1,2,3");
}

#[tokio::test]
async fn a_pod_that_asks_for_nothing_needs_no_plugin() {
    let node = Node::new().await;
    assert_eq!(node.allocate(&pod("a", 0)).await.unwrap(), "");
    let answer = node.manager.prepare(&pod("a", 0), &name("c")).await.unwrap();
    assert_eq!(answer, Default::default());
    assert!(!node.directory.path().join("checkpoint").exists(), "nothing is written for it");
}

#[tokio::test]
async fn devices_that_become_unhealthy_are_not_given_and_those_given_are_kept() {
    let mut node = Node::new().await;
    let plugin = node.plugin(usual(), &["1", "2"]).await;
    assert_eq!(node.allocate(&pod("a", 1)).await.unwrap(), "1");
    plugin.devices.send_replace(Some(vec![device("1", UNHEALTHY), device("2", UNHEALTHY)]));
    node.has(2, 0).await;
    assert_eq!(node.manager.health(&resource(), "1"), DeviceHealth::Unhealthy);
    assert!(node.allocate(&pod("b", 1)).await.is_err());
    assert_eq!(text(&node.manager.given(&"a".parse().unwrap()).unwrap()), "1");
    // What the plugin does not name any more is not there, and the pod's all the same.
    plugin.devices.send_replace(Some(healthy(&["2", "3"])));
    node.has(2, 2).await;
    assert_eq!(node.manager.health(&resource(), "1"), DeviceHealth::Unhealthy);
    assert_eq!(node.manager.health(&resource(), "2"), DeviceHealth::Healthy);
    plugin.devices.send_replace(Some(healthy(&["1"])));
    node.has(1, 1).await;
    assert!(node.allocate(&pod("b", 1)).await.is_err(), "it is a's still");
}

#[tokio::test]
async fn a_plugin_says_which_devices_it_would_rather_give() {
    let mut node = Node::new().await;
    let options = DevicePluginOptions { get_preferred_allocation_available: true, pre_start_required: false };
    let favourites = vec!["3".to_owned(), "none".to_owned()];
    let plugin =
        node.plugin(script(|to| (to.options, to.favourites) = (options, favourites)), &["1", "2", "3"]).await;
    // The init container's device must be in what the app container gets.
    let mut wants = pod("a", 2);
    let mut init = wants.spec.containers[0].clone();
    init.name = name("i");
    init.resources.extended.insert(resource(), 1);
    wants.spec.init_containers.push(init);
    assert_eq!(node.allocate(&wants).await.unwrap(), "1,3");
    let questions = std::mem::take(&mut plugin.script().questions);
    let asked: Vec<_> = questions
        .iter()
        .map(|one| {
            (one.available_device_i_ds.len(), one.must_include_device_i_ds.join(","), one.allocation_size)
        })
        .collect();
    assert_eq!(asked, [(3, String::new(), 1), (3, "3".to_owned(), 2)]);
    node.manager.release(&wants.uid).await.unwrap();
    // Advice that does not come, or is none, keeps nobody from his devices.
    for does in [Does::Fail("the device is on fire"), Does::Lie, Does::Flood] {
        plugin.script().prefer = does;
        assert_eq!(node.allocate(&pod("b", 1)).await.unwrap(), "1", "{does:?}");
        node.manager.release(&"b".parse().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_plugin_that_wants_to_is_told_before_each_start() {
    let mut node = Node::new().await;
    let options = DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: false };
    let plugin = node.plugin(script(|to| to.options = options), &["1"]).await;
    let pod = pod("a", 1);
    let not_given = node.manager.prepare(&pod, &name("c")).await.unwrap_err();
    assert!(matches!(not_given, PrepareError::NotGiven { .. }), "{not_given}");
    node.allocate(&pod).await.unwrap();
    for _ in 0..2 {
        node.manager.prepare(&pod, &name("c")).await.unwrap();
    }
    assert_eq!(plugin.script().started, [["1"], ["1"]]);
    plugin.script().pre_start = Does::Fail("the device is on fire");
    let failed = node.manager.prepare(&pod, &name("c")).await.unwrap_err().to_string();
    assert!(failed.contains("the device is on fire"), "{failed}");
    drop(plugin);
    node.has(1, 0).await;
    let missing = node.manager.prepare(&pod, &name("c")).await.unwrap_err();
    assert!(matches!(missing, PrepareError::Missing { .. }), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_pods_that_want_few_devices_at_once_no_two_get_the_same() {
    let mut node = Node::new().await;
    let ids: Vec<String> = (10..50).map(|id| id.to_string()).collect();
    let options = DevicePluginOptions { get_preferred_allocation_available: true, pre_start_required: false };
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let favourites = vec!["10".to_owned(), "11".to_owned(), "12".to_owned()];
    let _plugin = node.plugin(script(|to| (to.options, to.favourites) = (options, favourites)), &ids).await;
    let node = Arc::new(node);
    let pods = (0..60).map(|at| {
        let (node, pod) = (node.clone(), pod(&format!("p{at}"), 1 + at % 3));
        tokio::spawn(async move { node.allocate(&pod).await })
    });
    let mut given = Vec::new();
    for task in pods.collect::<Vec<_>>() {
        if let Ok(devices) = task.await.unwrap() {
            given.extend(devices.split(',').map(str::to_owned));
        }
    }
    let count = given.len();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), count, "none twice");
    assert_eq!(
        count, 40,
        "and all of them: every pod that was refused asked for more than were left, or all were taken"
    );
}

#[tokio::test]
async fn what_a_sidecar_has_stays_its_own() {
    let mut node = Node::new().await;
    let _plugin = node.plugin(usual(), &["1", "2"]).await;
    let mut wants = pod("a", 1);
    let mut sidecar = wants.spec.containers[0].clone();
    sidecar.name = name("s");
    sidecar.restart_policy = Some(RestartPolicy::Always);
    wants.spec.init_containers.push(sidecar);
    let given = node.manager.allocate(&wants).await.unwrap();
    assert_eq!(given[&name("s")][&resource()], ["1".to_owned()].into());
    assert_eq!(given[&name("c")][&resource()], ["2".to_owned()].into());
}
