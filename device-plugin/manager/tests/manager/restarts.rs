//! The manager is killed, and another one takes its place.

use std::path::Path;

use coracle_device_manager::PrepareError;

use super::*;

fn known(pods: &[(&str, &PodDevices)]) -> BTreeMap<PodUid, PodDevices> {
    pods.iter().map(|(uid, devices)| (uid.parse().unwrap(), (*devices).clone())).collect()
}

#[tokio::test]
async fn pods_keep_their_devices_before_any_plugin_is_back_and_nobody_else_gets_them() {
    let mut node = Node::new().await;
    let plugin = node.plugin(usual(), &["1", "2"]).await;
    let one = pod("a", 1);
    let given = node.manager.allocate(&one).await.unwrap();
    let mut node = node.restarted(&known(&[("a", &given)])).await;
    assert!(!plugin.socket.exists(), "the plugin is told to register again");
    assert_eq!(node.manager.given(&one.uid), Some(given.clone()));
    assert_eq!(node.manager.allocate(&one).await.unwrap(), given);
    let answer = node.manager.prepare(&one, &name("c")).await.unwrap();
    assert_eq!(answer.edits.env, [("DEVICES".to_owned(), "1".to_owned())]);
    drop(plugin);
    let _plugin = node.plugin(usual(), &["1", "2"]).await;
    assert_eq!(node.allocate(&pod("b", 1)).await.unwrap(), "2");
    assert!(node.allocate(&pod("c", 1)).await.is_err());
}

#[tokio::test]
async fn what_pods_had_that_are_no_more_is_free() {
    let mut node = Node::new().await;
    let plugin = node.plugin(usual(), &["1", "2"]).await;
    node.manager.allocate(&pod("a", 2)).await.unwrap();
    drop(plugin);
    let mut node = node.restarted(&known(&[])).await;
    let _plugin = node.plugin(usual(), &["1", "2"]).await;
    assert_eq!(node.allocate(&pod("b", 2)).await.unwrap(), "1,2");
}

#[tokio::test]
async fn a_checkpoint_that_is_damaged_or_lost_is_made_anew_from_the_records_of_pods() {
    let damages: [fn(&Path) -> std::io::Result<()>; 2] =
        [|path| std::fs::write(path, "{}"), |path| std::fs::remove_file(path)];
    for damage in damages {
        let mut node = Node::new().await;
        let plugin = node.plugin(usual(), &["1", "2"]).await;
        let one = pod("a", 1);
        let given = node.manager.allocate(&one).await.unwrap();
        damage(&node.directory.path().join("checkpoint")).unwrap();
        drop(plugin);
        let mut node = node.restarted(&known(&[("a", &given)])).await;
        assert_eq!(node.manager.given(&one.uid), Some(given.clone()));
        // What the plugin said is lost with it, and asked for again.
        let missing = node.manager.prepare(&one, &name("c")).await.unwrap_err();
        assert!(matches!(missing, PrepareError::Missing { .. }), "{missing}");
        let plugin = node.plugin(usual(), &["1", "2"]).await;
        assert_eq!(node.allocate(&pod("b", 1)).await.unwrap(), "2");
        for _ in 0..2 {
            let answer = node.manager.prepare(&one, &name("c")).await.unwrap();
            assert_eq!(answer.edits.env, [("DEVICES".to_owned(), "1".to_owned())]);
        }
        assert_eq!(plugin.script().allocated, [["2"], ["1"]], "asked for once");
        // And then it is on record.
        let node = node.restarted(&known(&[("a", &given)])).await;
        node.manager.prepare(&one, &name("c")).await.unwrap();
    }
}

#[tokio::test]
async fn where_record_and_checkpoint_differ_the_pod_is_believed() {
    let mut node = Node::new().await;
    let plugin = node.plugin(usual(), &["1", "2"]).await;
    let mut given = node.manager.allocate(&pod("a", 1)).await.unwrap();
    drop(plugin);
    given.get_mut(&name("c")).unwrap().insert(resource(), ["2".to_owned()].into());
    let mut node = node.restarted(&known(&[("a", &given)])).await;
    let _plugin = node.plugin(usual(), &["1", "2"]).await;
    assert_eq!(node.allocate(&pod("b", 1)).await.unwrap(), "1");
}

#[tokio::test]
async fn devices_that_cannot_be_recorded_are_not_given() {
    let mut node = Node::with(|options| options.checkpoint.push("missing/checkpoint")).await;
    let _plugin = node.plugin(usual(), &["1"]).await;
    let failed = node.allocate(&pod("a", 1)).await.unwrap_err();
    assert!(failed.contains("cannot be recorded"), "{failed}");
    assert!(node.manager.holders(&resource()).is_empty());
}
