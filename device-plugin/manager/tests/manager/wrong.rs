//! Everything that a plugin can do wrong.

use std::time::Duration;

use coracle_device_api::deviceplugin::{Device, DevicePluginOptions};
use coracle_device_api::tonic::Code;
use coracle_device_manager::AllocateError;

use super::*;
use coracle_scripted_plugin::{Does, Plugin, Script, healthy, register};

#[tokio::test]
async fn who_registers_what_cannot_be_is_refused() {
    let node = Node::new().await;
    for (version, endpoint, resource, said) in [
        ("v1", "x.sock", RESOURCE, "requested API version"),
        ("", "x.sock", RESOURCE, "requested API version"),
        ("v1beta1", "x.sock", "gpu", "is invalid for extended resource"),
        ("v1beta1", "x.sock", "kubernetes.io/x", "is invalid for extended resource"),
        ("v1beta1", "../x.sock", RESOURCE, "not the file name"),
        ("v1beta1", "", RESOURCE, "not the file name"),
        ("v1beta1", "kubelet.sock", RESOURCE, "not the file name"),
    ] {
        let refused = register(&node.plugins(), version, endpoint, resource, None).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(said), "{refused}");
    }
    assert!(node.manager.inventory().is_empty());
    for at in 0..256 {
        register(&node.plugins(), "v1beta1", "x.sock", &format!("example.com/x{at}"), None).await.unwrap();
    }
    let refused = register(&node.plugins(), "v1beta1", "x.sock", "example.com/more", None).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    // One that is there already may come again.
    register(&node.plugins(), "v1beta1", "x.sock", "example.com/x0", None).await.unwrap();
}

#[tokio::test]
async fn one_that_fails_to_allocate_leaves_the_devices_free() {
    let mut node = Node::with(|options| options.deadlines.allocate = Duration::from_millis(200)).await;
    let plugin = node.plugin(usual(), &["1", "2"]).await;
    for (does, said) in [
        (Does::Fail("the device is on fire"), "the device is on fire"),
        (Does::Hang, "no answer within"),
        (Does::Lie, "permissions"),
    ] {
        plugin.script().allocate = does;
        let failed = node.manager.allocate(&pod("a", 2)).await.unwrap_err();
        assert!(matches!(failed, AllocateError::Plugin { .. }), "{failed}");
        assert!(failed.to_string().contains(said) && failed.to_string().contains(RESOURCE), "{failed}");
        assert!(node.manager.holders(&resource()).is_empty());
    }
    plugin.script().allocate = Does::Answer;
    assert_eq!(node.allocate(&pod("b", 2)).await.unwrap(), "1,2");
}

#[tokio::test]
async fn one_that_hangs_holds_up_no_pod_of_another() {
    let mut node = Node::new().await;
    let options = DevicePluginOptions { get_preferred_allocation_available: true, pre_start_required: true };
    let script =
        Script { options, prefer: Does::Hang, allocate: Does::Hang, pre_start: Does::Hang, ..usual() };
    let hangs = node.plugin(script, &["1", "2"]).await;
    let other = Plugin::start(node.plugins().join("y.sock"), usual(), healthy(&["1"]));
    other.register(&node.plugins(), "example.com/y").await.unwrap();
    let y = ExtendedResource::new("example.com/y").unwrap();
    node.until(|manager| manager.inventory().get(&y).is_some_and(|has| has.allocatable == 1)).await;
    let waits = pod("a", 1);
    let mut waiting = std::pin::pin!(node.manager.allocate(&waits));
    let mut wants = pod("b", 0);
    wants.spec.containers[0].resources.extended.insert(y, 1);
    tokio::select! {
        done = &mut waiting => panic!("it hangs: {done:?}"),
        given = node.allocate(&wants) => assert_eq!(given.unwrap(), "1"),
    }
    drop(hangs);
}

#[tokio::test]
async fn a_pod_that_is_released_or_given_up_while_its_plugin_hangs_has_nothing() {
    let mut node = Node::new().await;
    let plugin = node.plugin(Script { allocate: Does::Hang, ..usual() }, &["1"]).await;
    let asks = |plugin: &Plugin| plugin.script().allocated.len();
    let one = pod("a", 1);
    for round in 1..=2 {
        let mut waiting = Box::pin(node.manager.allocate(&one));
        while asks(&plugin) < round {
            let short = tokio::time::timeout(Duration::from_millis(5), &mut waiting).await;
            assert!(short.is_err(), "it hangs: {short:?}");
        }
        assert_eq!(node.manager.holders(&resource()).len(), 1, "it is a's from the choice on");
        let busy = node.manager.allocate(&one).await.unwrap_err();
        assert!(matches!(busy, AllocateError::Busy), "{busy}");
        let other = node.manager.allocate(&pod("b", 1)).await.unwrap_err();
        assert!(matches!(other, AllocateError::Insufficient { .. }), "{other}");
        match round {
            1 => node.manager.release(&one.uid).await.unwrap(),
            _ => drop(waiting),
        }
        assert!(node.manager.holders(&resource()).is_empty());
        assert_eq!(node.manager.given(&one.uid), None);
    }
}

#[tokio::test]
async fn one_that_goes_leaves_its_devices_unhealthy_and_then_forgotten() {
    let mut node = Node::with(|options| options.deadlines.grace = Duration::from_millis(300)).await;
    let plugin = node.plugin(usual(), &["1", "2"]).await;
    assert_eq!(node.allocate(&pod("a", 1)).await.unwrap(), "1");
    drop(plugin);
    node.has(2, 0).await;
    let missing = node.manager.allocate(&pod("b", 1)).await.unwrap_err();
    assert!(matches!(missing, AllocateError::Missing { .. }), "{missing}");
    node.until(|manager| manager.inventory().is_empty()).await;
    assert_eq!(text(&node.manager.given(&"a".parse().unwrap()).unwrap()), "1", "what a has is not forgotten");
    let _back = node.plugin(usual(), &["1", "2"]).await;
    assert_eq!(node.allocate(&pod("b", 1)).await.unwrap(), "2");
}

#[tokio::test]
async fn one_that_comes_back_within_its_grace_is_as_before() {
    let mut node = Node::new().await;
    drop(node.plugin(usual(), &["1", "2"]).await);
    node.has(2, 0).await;
    let _back = node.plugin(usual(), &["1", "2"]).await;
    assert_eq!(node.allocate(&pod("a", 2)).await.unwrap(), "1,2");
}

#[tokio::test]
async fn one_that_registers_again_takes_the_place_of_the_one_before() {
    let mut node = Node::new().await;
    let old = node.plugin(usual(), &["1", "2"]).await;
    let new = Plugin::start(node.plugins().join("new.sock"), usual(), healthy(&["3"]));
    new.register(&node.plugins(), RESOURCE).await.unwrap();
    node.has(1, 1).await;
    old.name(&["1", "2", "4"]);
    assert_eq!(node.allocate(&pod("a", 1)).await.unwrap(), "3");
    drop(old);
    node.until(|manager| manager.inventory()[&resource()].allocatable == 1).await;
    assert_eq!(new.script().allocated, [["3"]]);
}

#[tokio::test]
async fn one_that_listens_only_after_it_has_registered_is_waited_for() {
    let mut node = Node::new().await;
    let options = Some(DevicePluginOptions::default());
    register(&node.plugins(), "v1beta1", "x.sock", RESOURCE, options).await.unwrap();
    let missing = node.manager.allocate(&pod("a", 1)).await.unwrap_err().to_string();
    assert!(missing.contains("has registered, and not named its devices yet"), "{missing}");
    let _plugin = Plugin::start(node.plugins().join("x.sock"), usual(), healthy(&["1"]));
    node.has(1, 1).await;
}

#[tokio::test]
async fn one_that_nobody_can_reach_is_gone_when_its_time_is_over() {
    let mut node = Node::with(|options| {
        options.deadlines.connect = Duration::from_millis(200);
        options.deadlines.grace = Duration::from_millis(200);
    })
    .await;
    register(&node.plugins(), "v1beta1", "x.sock", RESOURCE, None).await.unwrap();
    node.until(|manager| manager.inventory().is_empty()).await;
}

#[tokio::test]
async fn one_that_does_not_say_what_it_wants_to_be_asked_is_gone_when_its_time_is_over() {
    let mut node = Node::with(|options| options.deadlines.info = Duration::from_millis(200)).await;
    let hangs = Script { introduce: Does::Hang, ..usual() };
    let plugin = Plugin::start(node.plugins().join("x.sock"), hangs, healthy(&["1"]));
    // It registers without options: it is asked for them.
    register(&node.plugins(), "v1beta1", "x.sock", RESOURCE, None).await.unwrap();
    let gone = async {
        loop {
            let missing = node.manager.allocate(&pod("a", 1)).await.unwrap_err().to_string();
            if missing.contains("has stopped to answer") {
                return;
            }
            node.changes.next().await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("it is not waited for any longer");
    plugin.script().introduce = Does::Answer;
    register(&node.plugins(), "v1beta1", "x.sock", RESOURCE, None).await.unwrap();
    node.has(1, 1).await;
}

#[tokio::test]
async fn one_that_registers_and_names_nothing_is_not_believed_for_long() {
    let mut node = Node::with(|options| options.deadlines.list = Duration::from_millis(200)).await;
    let old = node.plugin(usual(), &["1", "2"]).await;
    let new = Plugin::start(node.plugins().join("new.sock"), usual(), healthy(&[]));
    new.devices.send_replace(None);
    new.register(&node.plugins(), RESOURCE).await.unwrap();
    node.has(2, 0).await;
    assert!(matches!(node.manager.allocate(&pod("a", 1)).await, Err(AllocateError::Missing { .. })));
    new.name(&["5"]);
    node.has(1, 1).await;
    drop(old);
}

#[tokio::test]
async fn one_that_names_too_many_devices_is_gone_and_one_that_names_some_twice_is_not() {
    let mut node = Node::new().await;
    let plugin = node.plugin(usual(), &["1"]).await;
    plugin.name(&["1", "1", "2", ""]);
    node.has(2, 2).await;
    let many: Vec<Device> = (0..20_000).flat_map(|id| healthy(&[&id.to_string()])).collect();
    plugin.devices.send_replace(Some(many));
    node.has(2, 0).await;
    let why = node.manager.allocate(&pod("a", 1)).await.unwrap_err();
    assert!(matches!(why, AllocateError::Missing { .. }), "{why}");
}

#[tokio::test]
async fn one_that_floods_is_heard_to_the_last_word_and_wakes_nobody_often() {
    let mut node = Node::new().await;
    let plugin = node.plugin(usual(), &["1"]).await;
    let changes = node.manager.watch();
    let counted = tokio::spawn(async move {
        let mut changes = changes;
        let mut count = 0_usize;
        while tokio::time::timeout(Duration::from_millis(500), changes.next()).await.is_ok() {
            count += 1;
        }
        count
    });
    let start = std::time::Instant::now();
    for round in 0..2000 {
        plugin.name(&["1", if round % 2 == 0 { "2" } else { "3" }]);
        tokio::task::yield_now().await;
    }
    plugin.name(&["1", "2", "3", "4"]);
    node.has(4, 4).await;
    let most = 3 + start.elapsed().as_millis() as usize / 50;
    let count = counted.await.unwrap();
    assert!(count <= most, "{count} changes were told, and {most} may have been in that time");
}
